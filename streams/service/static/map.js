// The map of the items on a canvas: zoom and pan by mouse, touch and keyboard; names on hover and with N and P.

import { colour, trace } from "./interests.js";
import { nameOf } from "./view.js";

const MAX_ZOOM = 24;
const STEP = 60; // pixels that an arrow key moves
const REACH = 14; // pixels within which the pointer finds an item
const SPACE = 26; // pixels between two interests
const MOVE_MS = 450; // duration of the interests' way to their new places
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class ItemMap {
  /**
   * @param {HTMLElement} element contains the canvas, the text `.state`, the tip and the zoom buttons
   * @param {(item: object) => void} onChoose called with the item that was clicked
   * @param {(text: string) => void} announce called with the name of the item that N and P reach
   */
  constructor(element, onChoose, announce) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.tip = element.querySelector(".tip");
    this.onChoose = onChoose;
    this.announce = announce;
    this.items = []; // the sampled items: {id, title, category, at}
    this.labels = []; // names of categories: {text, above, below}
    this.marks = []; // clicks and recalled items: {item, interest, clicked, at}
    this.interests = []; // {interest, at, from}
    this.view = { x: 0, y: 0, zoom: 1 };
    this.pointed = null;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Show the sampled items, and hide the text about the map's state. */
  setItems(items) {
    this.items = items;
    this.labels = categoryLabels(items);
    this.element.querySelector(".state").hidden = true;
    this.draw();
  }

  /** Show one explanation: `marks` as above, and the interests' places. */
  setMarks(marks, places) {
    const now = performance.now();
    const old = this.interests;
    this.marks = marks;
    this.interests = places.map((at, interest) => ({ interest, at, from: old[interest] ? this.placeOf(old[interest], now) : at }));
    this.movedAt = now;
    this.pointed = null;
    this.showTip();
    this.draw();
  }

  /** Return the words that say the same as the picture: each interest, and the recalled items nearest to it. */
  words() {
    return this.interests.map(({ interest, at }) => {
      const near = this.marks
        .filter((mark) => mark.interest === interest && !mark.clicked)
        .sort((a, b) => distance(a.at, at) - distance(b.at, at))
        .slice(0, 3);
      return { interest, near: near.map((mark) => mark.item), side: side(at) };
    });
  }

  placeOf(one, now) {
    const part = still.matches ? 1 : Math.min(1, (now - this.movedAt) / MOVE_MS);
    const eased = 1 - (1 - part) ** 3;
    return [0, 1].map((axis) => one.from[axis] + eased * (one.at[axis] - one.from[axis]));
  }

  pixels([x, y]) {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = 0.46 * Math.min(width, height) * this.view.zoom;
    const wide = Math.min(1.5, width / Math.min(width, height)); // use the width of a wide map
    return [width / 2 + (x - this.view.x) * scale * wide, height / 2 - (y - this.view.y) * scale];
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = null;
      this.paint(now);
      if (!still.matches && now - this.movedAt < MOVE_MS) this.draw();
    });
  }

  paint(now) {
    const box = this.canvas.getBoundingClientRect();
    const density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(box.width * density);
    this.canvas.height = Math.round(box.height * density);
    const context = this.canvas.getContext("2d");
    context.scale(density, density);
    const style = getComputedStyle(this.element);
    const [ink, paper, dot, label] = ["--ink", "--card", "--dot", "--muted"].map((name) => style.getPropertyValue(name));
    context.fillStyle = dot;
    const size = Math.min(4, 1.7 + 0.3 * this.view.zoom);
    for (const { at } of this.items) {
      const [x, y] = this.pixels(at);
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
    this.paintLabels(context, label, paper, box);
    for (const mark of this.marks) if (mark.clicked) this.paintLine(context, mark, now);
    for (const mark of this.marks) {
      const [x, y] = this.pixels(mark.at);
      trace(context, mark.interest, x, y, mark.clicked ? 4.5 : 3.5);
      context.lineWidth = mark.clicked ? 1 : 1.6;
      context.strokeStyle = mark.clicked ? paper : colour(mark.interest);
      context.fillStyle = mark.clicked ? colour(mark.interest) : paper;
      context.fill();
      context.stroke();
    }
    const apart = this.apart(now);
    this.interests.forEach((one, i) => paintInterest(context, one.interest, apart[i], ink, paper));
    if (this.pointed) {
      const [x, y] = this.pixels(this.pointed.at);
      context.beginPath();
      context.arc(x, y, 9, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.strokeStyle = ink;
      context.stroke();
    }
  }

  /** Return where the interests are drawn: interests at one place are moved apart, so that none is hidden. */
  apart(now) {
    const places = this.interests.map((one) => this.pixels(this.placeOf(one, now)));
    for (let round = 0; round < 12; round++) {
      for (let i = 0; i < places.length; i++) {
        for (let j = 0; j < i; j++) {
          const away = distance(places[i], places[j]);
          if (away >= SPACE) continue;
          const angle = away > 0.5 ? Math.atan2(places[i][1] - places[j][1], places[i][0] - places[j][0]) : i + 2 * j;
          const push = [Math.cos(angle) * (SPACE - away) / 2, Math.sin(angle) * (SPACE - away) / 2];
          places[i] = [places[i][0] + push[0], places[i][1] + push[1]];
          places[j] = [places[j][0] - push[0], places[j][1] - push[1]];
        }
      }
    }
    return places;
  }

  paintLine(context, mark, now) {
    const one = this.interests[mark.interest];
    if (!one) return;
    context.beginPath();
    context.moveTo(...this.pixels(mark.at));
    context.lineTo(...this.pixels(this.placeOf(one, now)));
    context.lineWidth = 1.2;
    context.globalAlpha = 0.45;
    context.strokeStyle = colour(mark.interest);
    context.stroke();
    context.globalAlpha = 1;
  }

  paintLabels(context, label, paper, box) {
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const taken = [];
    const isFree = ([left, top, right, bottom]) => left > 0 && right < box.width && top > 0 && bottom < box.height
      && !taken.some((b) => left < b[2] && b[0] < right && top < b[3] && b[1] < bottom);
    for (const { text, above, below } of this.labels) {
      const half = context.measureText(text).width / 2;
      const places = [[above, -9], [below, 10]].map(([at, dy]) => [this.pixels(at)[0], this.pixels(at)[1] + dy]);
      const place = places.find(([x, y]) => isFree([x - half, y - 6, x + half, y + 6]));
      if (!place) continue;
      const [x, y] = place;
      const area = [x - half, y - 6, x + half, y + 6];
      taken.push(area);
      context.lineWidth = 3;
      context.strokeStyle = paper;
      context.strokeText(text, x, y);
      context.fillStyle = label;
      context.fillText(text, x, y);
    }
  }

  zoomBy(factor, [px, py] = this.centre()) {
    const before = this.toMap(px, py);
    this.view.zoom = Math.min(MAX_ZOOM, Math.max(1, this.view.zoom * factor));
    const after = this.toMap(px, py);
    this.move(before[0] - after[0], before[1] - after[1]);
  }

  move(dx, dy) {
    const limit = 1 - 1 / (2 * this.view.zoom);
    this.view.x = Math.min(limit, Math.max(-limit, this.view.x + dx));
    this.view.y = Math.min(limit, Math.max(-limit, this.view.y + dy));
    if (this.view.zoom === 1) this.view = { x: 0, y: 0, zoom: 1 };
    this.element.classList.toggle("zoomed", this.view.zoom > 1); // one finger scrolls the page until then
    this.showTip();
    this.draw();
  }

  toMap(px, py) {
    const [x0, y0] = this.pixels([0, 0]);
    const [x1, y1] = this.pixels([1, 1]);
    return [(px - x0) / (x1 - x0), (py - y0) / (y1 - y0)];
  }

  pan(px, py) {
    const [from, to] = [this.toMap(0, 0), this.toMap(px, py)];
    this.move(from[0] - to[0], from[1] - to[1]);
  }

  centre() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return [width / 2, height / 2];
  }

  /** Return what is nearest to a point: marks first, then the other items. */
  find(px, py) {
    const best = (list) => {
      let found = null;
      let least = REACH;
      for (const one of list) {
        const away = distance(this.pixels(one.at), [px, py]);
        if (away < least) [found, least] = [one, away];
      }
      return found;
    };
    const mark = best(this.marks);
    if (mark) return mark;
    const item = best(this.items);
    return item && { item, at: item.at, interest: null };
  }

  point(found) {
    this.pointed = found;
    this.showTip();
    this.draw();
  }

  showTip() {
    this.tip.hidden = !this.pointed;
    if (!this.pointed) return;
    this.tip.textContent = describe(this.pointed);
    const [x, y] = this.pixels(this.pointed.at);
    const { width } = this.canvas.getBoundingClientRect();
    const left = Math.min(Math.max(x - this.tip.offsetWidth / 2, 4), Math.max(4, width - this.tip.offsetWidth - 4));
    this.tip.style.setProperty("left", `${left}px`);
    this.tip.style.setProperty("top", `${y > 50 ? y - 16 - this.tip.offsetHeight : y + 16}px`);
  }

  /** Name the next or the previous mark; without marks, the sampled items. */
  step(by) {
    const list = this.marks.length ? this.marks : this.items.map((item) => ({ item, at: item.at, interest: null }));
    if (!list.length) return;
    const now = list.findIndex((one) => this.pointed && one.item.id === this.pointed.item.id);
    this.point(list[(now + by + list.length + (now < 0 && by < 0 ? 1 : 0)) % list.length]);
    this.announce(describe(this.pointed));
  }

  all() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.move(0, 0);
  }

  /** Show the part of the map that has the interests and the clicks. */
  fit() {
    const places = [...this.interests, ...this.marks.filter((mark) => mark.clicked)].map((one) => one.at);
    if (!places.length) return this.all();
    const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((axis) => end(...places.map((at) => at[axis]))));
    const extent = Math.max(high[0] - low[0], high[1] - low[1], 0.1);
    this.view = { x: (low[0] + high[0]) / 2, y: (low[1] + high[1]) / 2, zoom: Math.min(MAX_ZOOM, Math.max(1, 1.6 / extent)) };
    this.move(0, 0);
  }

  listen() {
    const { element, canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      if (!element.matches(":focus-within") && !event.ctrlKey) return; // the page scrolls until the map is clicked
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 300), [event.offsetX, event.offsetY]);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      this.dragged = 0;
    });
    canvas.addEventListener("pointermove", (event) => this.pointerMoved(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => {
      this.pointers.delete(event.pointerId);
      if (name === "pointercancel" || this.dragged > 6) return;
      const found = this.find(event.offsetX, event.offsetY);
      if (found) this.onChoose(found.item);
    });
    canvas.addEventListener("pointerleave", () => this.point(null));
    element.addEventListener("keydown", (event) => this.key(event));
    element.parentElement.querySelector(".zoom").addEventListener("click", (event) => {
      const what = event.target.dataset.zoom;
      if (what === "all") this.all();
      else if (what === "fit") this.fit();
      else if (what) this.zoomBy(what === "in" ? 1.6 : 1 / 1.6);
    });
  }

  pointerMoved(event) {
    const here = [event.offsetX, event.offsetY];
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.point(this.find(...here));
      return;
    }
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    this.dragged += distance(here, before);
    if (other) this.zoomBy(distance(here, other) / Math.max(1, distance(before, other)), other);
    else this.pan(here[0] - before[0], here[1] - before[1]);
    this.pointers.set(event.pointerId, here);
  }

  key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      ArrowLeft: () => this.pan(STEP, 0), ArrowRight: () => this.pan(-STEP, 0),
      ArrowUp: () => this.pan(0, STEP), ArrowDown: () => this.pan(0, -STEP),
      "+": () => this.zoomBy(1.4), "=": () => this.zoomBy(1.4), "-": () => this.zoomBy(1 / 1.4), 0: () => this.all(),
      f: () => this.fit(), n: () => this.step(1), p: () => this.step(-1), Escape: () => this.point(null),
      Enter: () => this.pointed && this.onChoose(this.pointed.item),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

function paintInterest(context, interest, [x, y], ink, paper) {
  trace(context, interest, x, y, 11);
  context.lineWidth = 6;
  context.strokeStyle = paper;
  context.stroke();
  context.fillStyle = colour(interest);
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = ink;
  context.stroke();
  context.fillStyle = paper;
  context.font = "700 11px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(String(interest + 1), x, y + (interest % 4 === 1 ? 2 : 0.5));
}

/** Return the names of the categories above and below their items, the largest categories first. */
function categoryLabels(items) {
  const groups = new Map();
  for (const { category, at } of items) {
    if (category) groups.set(category, [...(groups.get(category) || []), at]);
  }
  const at = (values, part) => values.sort((a, b) => a - b)[Math.floor((values.length - 1) * part)];
  return [...groups]
    .sort((a, b) => b[1].length - a[1].length)
    .map(([text, places]) => {
      const x = at(places.map((place) => place[0]), 0.5);
      const [below, above] = [0.15, 0.85].map((part) => [x, at(places.map((place) => place[1]), part)]);
      return { text, above, below };
    });
}

function describe({ item, interest, clicked }) {
  const kind = interest === null ? "" : clicked ? `clicked, feeds interest ${interest + 1}` : `recalled by interest ${interest + 1}`;
  return [nameOf(item), item.category, kind].filter(Boolean).join(" · ");
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

function side([x, y]) {
  const down = y > 0.33 ? "top" : y < -0.33 ? "bottom" : "middle";
  const across = x > 0.33 ? "right" : x < -0.33 ? "left" : "centre";
  return `${down} ${across}`;
}
