// What happens when the page opens.

async function begin() {
  const [about, macro, nodes] = await Promise.all([ask("v1/about"), ask("v1/macro?limit=40"), ask("v1/macro/nodes")]);
  Object.assign(state, {about, macro, nodes, explained: null, names: {users: new Map(), items: new Map()}});
  el("facts").textContent = `Model ${about.model} · ${whole(about.users)} users · ${whole(about.items)} items · predicts ${about.tasks.join(", ")} · bundle ${about.bundle}`;
  await learnNames({users: about.busiest_users});
  el("users").replaceChildren(...about.busiest_users.map((user) => make("option", nameOf("users", user), {value: user})));
  if (!el("objective").value) el("objective").value = about.objective;
  const wanted = new URLSearchParams(location.hash.slice(1)).get("user");
  if (!el("user").value) el("user").value = wanted ?? (about.busiest_users.length ? about.busiest_users[0] : "");
  showTasks();
  showMacro();
  if (el("user").value) await rank(true);
}

new ResizeObserver(fitMacro).observe(el("macro"));
el("token").value = sessionStorage.getItem("mgoe-token") ?? "";
el("token").addEventListener("change", () => { sessionStorage.setItem("mgoe-token", el("token").value.trim()); if (!state.about) safely(begin); });
el("objective").addEventListener("input", markTask);
el("cancel").addEventListener("click", () => el("confirm").close());
el("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  safely(async () => { if (!state.about) await begin(); else await rank(); });
});
safely(begin);
