"""Titles and categories of generated items: each taste is a shelf of books, so that people see what is similar."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from model.arrays import IntVector
from model.explanation.names import ItemName, ItemNames

#: Category and subjects of each taste.
_SHELVES = """
Astronomy: Comets, Galaxies, the Moon, Black Holes, Mars, Telescopes, Eclipses, Meteorites
Baking: Sourdough, Croissants, Layer Cakes, Rye Bread, Pies, Biscuits, Flatbreads, Macarons
Birds: Owls, Swifts, Gulls, Cranes, Hummingbirds, Penguins, Herons, Songbirds
Boats: Knots, Canoes, Lighthouses, Rigging, Tides, Dinghies, Harbours, Anchors
Botany: Mosses, Ferns, Orchids, Seeds, Pollen, Lichens, Cacti, Roots
Chess: Openings, Endgames, Gambits, Pawns, Blindfold Play, Tournaments, Sacrifices, Studies
Cinema: Silent Film, Westerns, Film Noir, Editing, Screenplays, Animation, Stunts, Documentaries
Coffee: Espresso, Roasting, Latte Art, Cold Brew, Plantations, Grinders, Cafés, Filters
Crime: Alibis, Forgers, Poisons, Heists, Cold Cases, Detectives, Fingerprints, Smugglers
Cycling: Mountain Passes, Touring, Wheels, Tandems, Sprints, Frames, Commuting, Velodromes
Dance: Ballet, Tango, Swing, Flamenco, Tap, Waltz, Choreography, Hip-Hop
Design: Typefaces, Posters, Grids, Colour, Logos, Paper, Packaging, Signs
Dinosaurs: Fossils, Raptors, Pterosaurs, Eggs, Footprints, Feathers, Extinction, the Jurassic
Economics: Money, Markets, Trade, Taxes, Banks, Inflation, Auctions, Debt
Fantasy: Dragons, Sorcerers, Runes, Elves, Quests, Enchanted Swords, Goblins, Portals
Football: Goalkeepers, Penalties, Tactics, World Cups, Strikers, Derbies, Referees, Free Kicks
Gardening: Roses, Compost, Tomatoes, Pruning, Herbs, Hedges, Ponds, Greenhouses
Geology: Volcanoes, Crystals, Glaciers, Earthquakes, Caves, Granite, Rivers, Deserts
History: Pharaohs, Vikings, the Silk Road, Castles, Samurai, Rome, Explorers, Revolutions
Horses: Dressage, Ponies, Saddles, Foals, Jumping, Stables, Wild Horses, Trail Riding
Jazz: Bebop, Saxophones, Trumpets, Improvisation, Big Bands, Blues, Double Bass, Drummers
Knitting: Cables, Socks, Lace, Wool, Mittens, Sweaters, Fair Isle, Shawls
Law: Contracts, Juries, Courts, Evidence, Copyright, Constitutions, Appeals, Treaties
Mathematics: Primes, Infinity, Knots and Loops, Symmetry, Probability, Fractals, Graphs, Proofs
Medicine: Vaccines, Surgery, the Heart, Sleep, Bones, Immunity, Nursing, Genes
Mountains: Everest, Ice Climbing, the Alps, Avalanches, Huts, Ridges, Ropes, Summits
Mushrooms: Truffles, Chanterelles, Spores, Morels, Toadstools, Mycelium, Foraging, Oyster Mushrooms
Mythology: Titans, Trolls, Oracles, Giants, Labyrinths, Heroes, Tricksters, Underworlds
Oceans: Whales, Coral Reefs, Sharks, Submarines, Octopuses, Shipwrecks, Waves, the Deep Sea
Opera: Arias, Tenors, Overtures, Librettos, Sopranos, Divas, Choruses, Costumes
Painting: Watercolours, Portraits, Landscapes, Fresco, Still Lifes, Oils, Sketching, Pigments
Philosophy: Doubt, Free Will, Ethics, Stoics, Beauty, Paradoxes, Language, Happiness
Photography: Portraits in Light, Darkrooms, Lenses, Street Scenes, Exposure, Night Skies, Wildlife Shots, Film Cameras
Poetry: Sonnets, Haiku, Ballads, Odes, Elegies, Free Verse, Limericks, Rhyme
Programming: Compilers, Recursion, Databases, Types, Algorithms, Debugging, Networks, Tests
Railways: Steam Engines, Signals, Night Trains, Tunnels, Model Trains, Stations, Bridges, Trams
Robots: Sensors, Drones, Gears, Androids, Servos, Rovers, Automata, Grippers
Spaceflight: Rockets, Orbits, Astronauts, Space Stations, Probes, Launch Pads, Spacewalks, Re-entry
Tea: Oolong, Green Tea, Teapots, Ceremonies, Matcha, Darjeeling, Samovars, Blends
Wine: Vineyards, Cellars, Riesling, Sparkling Wine, Corks, Harvests, Tasting, Terroir
"""
_TITLES = """
{}|The Little Book of {}|{} for Beginners|A History of {}|The Art of {}|Understanding {}|{}: A Field Guide
{} in Practice|The Trouble with {}|A Year of {}|Notes on {}|All about {}|{} Illustrated
The Secret Life of {}|{}: An Introduction|The Science of {}|In Praise of {}|{} after Dark|On {}
Thinking about {}|{} from A to Z|Tales of {}|The World of {}|{}, Step by Step|The Future of {}
"""
_CATEGORIES = [line.partition(": ") for line in _SHELVES.strip().splitlines()]
_TEMPLATES = _TITLES.strip().replace("\n", "|").split("|")


def generated_names(item_taste: IntVector) -> dict[int, ItemName]:
    """Return a title and a category for each item, always the same; items of a taste share the category.

    Args:
        item_taste: (N + 1,) the taste of each item id, as in `SyntheticClicks`; -1 = not an item.
    """
    used: Counter[int] = Counter()
    names: dict[int, ItemName] = {}
    for item, taste in enumerate(item_taste.tolist()):
        if taste < 0:
            continue
        number, used[taste] = used[taste], used[taste] + 1
        category, _, subjects = _CATEGORIES[taste % len(_CATEGORIES)]
        listed = subjects.split(", ")
        edition, number = divmod(number, len(_TEMPLATES) * len(listed))
        # Neighbours in popularity differ in both subject and form.
        subject = listed[number % len(listed)]
        title = _TEMPLATES[(number + number // len(listed)) % len(_TEMPLATES)].format(subject)
        title = title[0].upper() + title[1:] + (f", volume {edition + 1}" if edition else "")
        more = taste // len(_CATEGORIES)
        names[item] = ItemName(title, f"{category} {more + 1}" if more else category)
    return names


def write_names(names: ItemNames, path: Path) -> None:
    """Write names as `model.explanation.names.read_names` reads them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "category"])
        rows.writerows([item, *name] for item, name in names.items())
