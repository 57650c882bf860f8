// The ranking of a user.

/** The buttons that rank by one task, or as the service does by default. */
function showTasks() {
  const known = [...new Set([state.about.objective, ...[...state.about.tasks].reverse()])];
  el("tasks").replaceChildren(...known.map((objective) => {
    const button = make("button", objective, {type: "button", "aria-pressed": String(el("objective").value.trim() === objective)});
    button.addEventListener("click", () => { el("objective").value = objective; markTask(); safely(() => rank()); });
    return button;
  }));
}

function markTask() {
  for (const button of el("tasks").children) button.setAttribute("aria-pressed", String(button.textContent === el("objective").value.trim()));
}

/** The id that was typed, or that of the offered user who has this name. */
function userAsked() {
  const typed = el("user").value.trim();
  return state.about.busiest_users.find((user) => nameOf("users", user) === typed) ?? typed;
}

/** Rank; when the bundle was replaced, read what the page knows of it again first, once. */
async function rank(isRead = false) {
  const turn = ++state.turn, user = userAsked(), objective = el("objective").value.trim();
  const answer = await ask("v1/rank", {user, k: Number(el("k").value) || 10, objective, exclude_known: el("new").checked});
  if (answer.bundle !== state.about.bundle && !isRead) return begin();
  const [known] = await Promise.all([knownOf(answer), learnNames({users: [answer.user], items: answer.items})]);
  if (turn !== state.turn) return;
  Object.assign(state, {answer, known});
  history.replaceState(null, "", "#user=" + encodeURIComponent(user));
  showRanking();
  await choose(answer.items.length ? answer.items[0] : null);
}

/** The ranked items that the user has a history with: those that the service leaves out when it may rank new ones only. */
async function knownOf({user, items}) {
  if (el("new").checked || !items.length) return new Set();
  const kept = await ask("v1/rank", {user, candidates: items, k: items.length, exclude_known: true});
  const fresh = new Set(kept.items);
  return new Set(items.filter((item) => !fresh.has(item)));
}

/** The columns of the table: a title and the text of each row. */
function columnsOf(answer) {
  const {tasks, kinds, objective: usual} = state.about, by = answer.objective;
  const columns = [...tasks].sort((a, b) => (b === by) - (a === by)).map((task) => inOneUnit(task, answer.tasks[task], kinds[task] === "binary"));
  if (tasks.includes(by)) return columns;
  const product = (names) => names.map((name) => answer.tasks[name]).reduce((one, other) => one.map((p, k) => p * other[k]));
  if (by === usual) return [inOneUnit(by, product(by.split(" * ")), true), ...columns];
  const [best, least] = [answer.scores[0], answer.scores.at(-1)];
  return [least > 0 ? ["score, best = 100", answer.scores.map((s) => (100 * s / best).toFixed(1))] : ["score", inDecimals(answer.scores)], ...columns];
}

function showRanking() {
  const answer = state.answer, columns = columnsOf(answer);
  el("titles").replaceChildren(...["#", "Item", ...columns.map(([title]) => title)].map((text) => make("th", text, {scope: "col"})));
  el("rows").replaceChildren(...answer.items.map((item, at) => {
    const row = make("tr"), cell = make("td"), name = nameOf("items", item);
    const button = make("button", name ?? item, {type: "button", title: called("items", item), "aria-label": `Explain ${called("items", item)}${state.known.has(item) ? ", known to the user" : ""}`});
    row.dataset.item = item;
    button.addEventListener("click", () => safely(() => choose(item).then(showWhy)));
    button.addEventListener("keydown", (event) => step(event, row));
    cell.append(button);
    if (name) cell.append(make("small", item));
    if (state.known.has(item)) cell.append(" ", make("span", "known", {class: "known"}));
    row.append(make("td", at + 1), cell, ...columns.map(([, texts]) => make("td", texts[at])));
    return row;
  }));
  const said = [`The best of ${whole(answer.ranked)} items for ${called("users", answer.user)}, by ${answer.objective}.`];
  if (answer.unseen_user) said.push("The service has never seen this user and assumes no history.");
  if (!answer.items.length) said.push("No item is left.");
  el("legend").hidden = !state.known.size;
  el("summary").textContent = said.join(" ");
}

function step(event, row) {
  const next = event.key === "ArrowDown" ? row.nextElementSibling : event.key === "ArrowUp" ? row.previousElementSibling : null;
  if (next) { event.preventDefault(); next.querySelector("button").focus(); }
}

/** Scroll to the explanation where it stands below the ranking, as on a phone. */
function showWhy() {
  const why = el("why").parentElement;
  if (why.offsetTop > el("ranking").offsetTop) why.scrollIntoView();
}

async function choose(item) {
  state.chosen = item;
  for (const row of el("rows").children) {
    const chosen = row.dataset.item === String(item);
    row.classList.toggle("chosen", chosen);
    row.querySelector("button").setAttribute("aria-current", String(chosen));
  }
  const turn = state.turn, query = new URLSearchParams({user: state.answer.user, ...(item === null ? {} : {item})});
  const explained = await ask("v1/explain?" + query);
  const {items, users} = explained.recents;
  await learnNames({users: users.map((one) => one.id), items: [item, ...items.map((one) => one.id)]});
  if (turn !== state.turn || item !== state.chosen) return;
  state.explained = explained;
  showExplanation();
  showUserEdges();
  showMacro();
}
