// Elements, requests, names: what every part of the page uses.

const el = (id) => document.getElementById(id);
const state = {about: null, answer: null, chosen: null, known: new Set(), macro: null, nodes: null, explained: null, turn: 0, names: {}};

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== null && text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

async function ask(path, body) {
  const headers = {};
  const token = el("token").value.trim();
  if (token) headers.Authorization = "Bearer " + token;
  const options = body === undefined ? {headers} : {method: "POST", headers: {...headers, "Content-Type": "application/json"}, body: JSON.stringify(body)};
  let response;
  try { response = await fetch(path, options); } catch { throw new Error("The service cannot be reached. Is it running?"); }
  const answer = await response.json();
  if (response.ok) return answer;
  if (response.status === 401) { el("access").open = true; el("token").focus(); }
  throw new Error(`${answer.place}: ${answer.error}`);
}

/** Do some work, and show why it fails if it does. */
async function safely(work) {
  try { await work(); el("trouble").textContent = ""; } catch (error) { el("trouble").textContent = error.message; }
}

/** Ask for the names of users and items that were not asked for before. */
async function learnNames(ids) {
  const asked = {};
  for (const side of state.about.named) {
    asked[side] = [...new Set(ids[side] ?? [])].filter((id) => id !== null && !state.names[side].has(String(id)));
  }
  if (!Object.values(asked).some((list) => list.length)) return;
  const answer = await ask("v1/names", asked);
  for (const [side, list] of Object.entries(asked)) list.forEach((id, at) => state.names[side].set(String(id), answer[side][at]));
}

const nameOf = (side, id) => state.names[side].get(String(id)) ?? null;
const word = {users: "user", items: "item"};
/** "Ann (user 42)", or "user 42" without a name. */
const called = (side, id) => nameOf(side, id) ? `${nameOf(side, id)} (${word[side]} ${id})` : `${word[side]} ${id}`;
/** The parts of a name with its id in small letters, or of "item 42" without a name. */
const withId = (side, id) => nameOf(side, id) ? [nameOf(side, id), " ", make("small", id)] : [`${word[side]} ${id}`];
/** The name of a macro node; the one after the last has no members. */
const groupOf = (side, number) => state.nodes[side][number]?.name ?? "none yet";

/** Named bars; a value is a number, or a number and how it is written. */
function bars(pairs, label, second) {
  const list = make("ul", null, {class: "bars", "aria-label": label}), values = pairs.map(([, value]) => value);
  const most = Math.max(...values, 1e-12), texts = inDecimals(values);
  for (const [at, [name, value, text]] of pairs.entries()) {
    const row = make("li"), track = make("span", null, {class: "track", "aria-hidden": "true"});
    const fill = make("span", null, {class: second ? "fill second" : "fill"});
    fill.style.width = `${Math.max(0, 100 * value / most)}%`;
    track.append(fill);
    row.append(make("span", name, {class: "name"}), make("span", text ?? texts[at], {class: "value"}), track);
    list.append(row);
  }
  return list;
}
