// The macro graph as a heat map.

const LEFT = 22, TOP = 22;  // room for the titles of the axes
const cursor = {row: -1, column: -1};
let drawnAt = 0;

/** Draw the map again where its width has changed. */
function fitMacro() {
  if (el("macro").clientWidth !== drawnAt) showMacro();
}

function showMacro() {
  const m = state.macro;
  if (!m || !m.users.length || !m.items.length) return;
  drawnAt = el("macro").clientWidth;
  const room = drawnAt || 340, size = Math.min(28, (room - LEFT - 2) / m.items.length);
  const width = LEFT + m.items.length * size + 2, height = TOP + m.users.length * size + 2;  // in pixels, so that letters keep their size
  const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "application", "aria-roledescription": "heat map", tabindex: 0, width, height, "aria-describedby": "reading",
    "aria-label": `${m.users.length} groups of users (rows) and ${m.items.length} groups of items (columns); arrow keys move from cell to cell`});
  svg.append(draw("text", {x: LEFT, y: 13}, "groups of items →"), draw("text", {x: 8, y: TOP, transform: `rotate(90 8 ${TOP})`}, "groups of users →"));
  m.lift.forEach((row, r) => row.forEach((lift, c) => {
    const depth = Math.max(-1, Math.min(1, Math.log2(Math.max(lift, 1e-9)) / 3));  // full color from 8 times or an eighth
    const cell = draw("rect", {class: depth > 0 ? "cell hot" : "cell cool", x: LEFT + c * size, y: TOP + r * size, width: size * .93, height: size * .93, rx: size / 12, "fill-opacity": (.06 + .94 * Math.abs(depth)).toFixed(3)});
    cell.addEventListener("pointerenter", () => read(r, c));
    svg.append(cell);
  }));
  const r = m.users.findIndex(({node}) => node === state.explained?.user_macro), c = m.items.findIndex(({node}) => node === state.explained?.item_macro);
  if (r >= 0) svg.append(draw("rect", {class: "mark", x: LEFT - 1, y: TOP + r * size - 1, width: m.items.length * size + 2, height: size + 2, rx: 3}));
  if (c >= 0) svg.append(draw("rect", {class: "mark", x: LEFT + c * size - 1, y: TOP - 1, width: size + 2, height: m.users.length * size + 2, rx: 3}));
  const pointer = draw("rect", {class: "pointer", width: size, height: size, rx: 2, visibility: "hidden"});
  svg.append(pointer);
  svg.addEventListener("keydown", (event) => moveCursor(event, pointer, size));
  el("macro").replaceChildren(svg);
  const framed = [r >= 0 ? "the user's group (row)" : null, c >= 0 ? "the item's group (column)" : null].filter(Boolean);
  el("reading").textContent = framed.length ? `Framed: ${framed.join(" and ")}.` : "";
}

function moveCursor(event, pointer, size) {
  const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -1e3], End: [0, 1e3]};
  if (event.key === "Escape") { pointer.setAttribute("visibility", "hidden"); el("reading").textContent = ""; return; }
  if (!moves[event.key]) return;
  event.preventDefault();
  const [down, right] = moves[event.key], inside = (at, most) => Math.max(0, Math.min(most - 1, at));
  cursor.row = inside(cursor.row + down, state.macro.users.length);
  cursor.column = inside(cursor.column + right, state.macro.items.length);
  for (const [name, value] of Object.entries({visibility: "visible", x: LEFT + cursor.column * size - 1, y: TOP + cursor.row * size - 1})) pointer.setAttribute(name, value);
  read(cursor.row, cursor.column);
}

/** Say what a cell holds. */
function read(r, c) {
  const m = state.macro, users = m.users[r], items = m.items[c];
  const lift = m.lift[r][c], much = `${lift.toFixed(lift < 1 ? 2 : 1)} times as much as their sizes explain`;
  el("reading").textContent = `${whole(users.members)} users (${users.name}) and ${whole(items.members)} items (${items.name}): ${much}.`;
}
