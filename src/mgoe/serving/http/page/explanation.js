// Why an item has its place, what is known of the user, and events to record.

const AGGREGATES = {
  u1: ["Groups of items that the user goes for", "items"], u2: ["Groups of users who resemble the user", "users"],
  i1: ["Groups of users who go for the item", "users"], i2: ["Groups of items that resemble the item", "items"],
};

function showExplanation() {
  const e = state.explained;
  if (e.item === null) { el("explanation").replaceChildren(make("p", "There is no item to explain.", {class: "note"})); return; }
  const parts = [make("p", `${called("items", e.item)} for ${called("users", e.user)}`, {id: "pair"})];
  if (state.known.has(state.chosen)) parts.push(make("p", "The user already has a history with this item.", {class: "note"}));
  for (const [title, isProbability] of [["How likely each task is", true], ["Expected values", false]]) {
    const tasks = Object.keys(e.tasks).filter((task) => (state.about.kinds[task] === "binary") === isProbability), values = tasks.map((task) => e.tasks[task]);
    const [head, texts] = inOneUnit(title, values, isProbability);
    if (tasks.length) parts.push(make("h3", head), bars(tasks.map((task, at) => [task, values[at], texts[at]]), head));
  }
  for (const [order, [title, side]] of Object.entries(AGGREGATES)) {
    const nodes = (e.macro ?? {})[order] ?? [];
    if (nodes.length) parts.push(make("h3", title), bars(nodes.slice(0, 3).map(({node, weight}) => [groupOf(side, node), weight, percent(weight)]), title));
  }
  if (e.macro) parts.push(make("p", "Percentages: the share of this group in all that the model reads from groups of this kind.", {class: "note"}));
  if (e.recents.items.length) parts.push(make("h3", "What the user did last"), chips("items", e.recents.items));
  if (e.recents.users.length) parts.push(make("h3", "Who interacted with the item last"), chips("users", e.recents.users));
  if (e.live) parts.push(make("h3", "What changed since the bundle was made"), ...changes(e.live));
  if (e.gates) parts.push(experts(e.gates));
  if (state.about.behaviors.length) parts.push(make("h3", "Record an event"), acts(e));
  el("explanation").replaceChildren(...parts);
}

/** The weights of the experts; one group of bars for all tasks whose weights agree. */
function experts(gates) {
  const groups = new Map();
  for (const [task, weights] of Object.entries(gates)) {
    const key = Object.values(weights).map((weight) => weight.toFixed(6)).join();
    groups.set(key, {weights, tasks: [...(groups.get(key)?.tasks ?? []), task]});
  }
  const box = make("details", null, {id: "experts"});
  box.append(make("summary", "Inside the model: its experts"), make("p", "An expert is a part of the network. The bars show how much each task uses it. Expert numbers are only labels.", {class: "note"}));
  for (const {weights, tasks} of groups.values()) {
    const title = tasks.length > 1 && groups.size === 1 ? "All tasks" : tasks.join(", ");
    box.append(make("h3", title), bars(Object.entries(weights).map(([expert, weight]) => [`Expert ${expert}`, weight, percent(weight)]), `Experts that ${title} read`, true));
  }
  return box;
}

function chips(side, neighbours) {
  const list = make("ul", null, {class: "chips"});
  for (const {id, tasks} of neighbours.slice(0, 8)) {
    const one = make("li");
    one.append(...withId(side, id), ` · ${tasks.join(", ")}`);
    list.append(one);
  }
  return list;
}

function changes(live) {
  if (!Object.values(live).some(Boolean)) return [make("p", "Nothing.", {class: "note"})];
  return Object.entries(live).map(([side, what]) => {
    if (!what) return make("p", `Nothing about the ${side}.`, {class: "note"});
    const [counted, groups] = side === "user" ? ["items", "items"] : ["users", "users"];
    const change = ([before, now], unit) => `${short(before)} → ${short(now)} ${unit}`;
    const parts = [change(what.pairs, counted), change(what.events, "events")];
    for (const {node, before, now} of what.edges.slice(0, 3)) parts.push(`tie to “${groupOf(groups, node)}” ${change([before, now], "")}`.trim());
    return make("p", `The ${side}${what.new ? " (new)" : ""}: ${parts.join("; ")}.`, {class: "note"});
  });
}

function acts(e) {
  const box = make("div", null, {class: "acts"});
  for (const behavior of state.about.behaviors) {
    const button = make("button", `${behavior}…`, {type: "button", "aria-haspopup": "dialog", "aria-label": `Record ${behavior} of ${called("users", e.user)} on ${called("items", e.item)}`});
    button.addEventListener("click", () => confirmEvent(e, behavior));
    box.append(button);
  }
  return box;
}

/** Ask whether an event shall be recorded; nothing is written before the answer. */
function confirmEvent(e, behavior) {
  el("question").textContent = `Record that ${called("users", e.user)} did “${behavior}” on ${called("items", e.item)}?`;
  el("record").textContent = `Record ${behavior}`;
  el("record").onclick = () => { el("confirm").close(); safely(() => record(e, behavior)); };
  el("confirm").showModal();
}

async function record(e, behavior) {
  const id = Array.from(crypto.getRandomValues(new Uint32Array(4)), (x) => x.toString(16)).join("-");
  const answer = await ask("v1/events", {events: [{user: e.user, item: e.item, behavior, id}]});
  if (answer.refused) throw new Error(answer.outcomes[0].error);
  await rank();
  await choose(e.item);
}

function showUserEdges() {
  const {user, user_edges, user_macro} = state.explained, edges = user_edges.slice(0, 8);
  if (!edges.length) { el("userEdges").replaceChildren(make("p", `Nothing is known of ${called("users", user)} yet.`, {class: "note"})); return; }
  el("userEdges").replaceChildren(
    make("p", `Groups of items by score, which counts everything that ${called("users", user)} did with them, stronger tasks more.`, {class: "note"}),
    bars(edges.map(({node, score}) => [groupOf("items", node), score]), `Groups of items that ${called("users", user)} goes for`),
    make("p", `The user's own group: ${groupOf("users", user_macro)}`, {class: "note"}),
  );
}
