// What an interest looks like, everywhere on the page: a colour and a shape, so that either is enough.

const SHAPES = ["circle", "triangle", "square", "diamond"];

/** Return the CSS colour of an interest; the palette is that of Okabe and Ito, adapted to either theme. */
export function colour(interest) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--interest-${interest % 4}`).trim();
}

/** Trace the shape of an interest around a point; the caller fills or strokes it. */
export function trace(context, interest, x, y, r) {
  context.beginPath();
  const shape = SHAPES[interest % 4];
  if (shape === "circle") {
    context.arc(x, y, r, 0, 2 * Math.PI);
  } else {
    const corners = { triangle: 3, square: 4, diamond: 4 }[shape];
    const turn = shape === "square" ? Math.PI / 4 : 0;
    for (let i = 0; i < corners; i++) {
      const angle = turn - Math.PI / 2 + (2 * Math.PI * i) / corners;
      context.lineTo(x + 1.2 * r * Math.cos(angle), y + 1.2 * r * Math.sin(angle));
    }
    context.closePath();
  }
}

/** Return the shape as a small picture; the text beside it says the same. */
export function badge(interest) {
  const span = document.createElement("span");
  span.className = `badge interest-${interest % 4}`;
  span.setAttribute("aria-hidden", "true");
  return span;
}

/** Return the shape's name. */
export function shapeName(interest) {
  return SHAPES[interest % 4];
}
