// The page: its views, its address (#view/what), its keys.

const VIEWS = [
  ["functions", "Functions", functionsView], ["code", "Code", codeView], ["flow", "Control flow", flowView],
  ["flame", "Flame graph", flameView], ["tables", "Tables", tablesView],
  ["timeline", "Timeline", timelineView], ["compare", "Compare", compareView],
].filter(([name]) => profile.functions.length || name === "timeline");

const view = document.getElementById("view");
const tabs = document.querySelector("nav");

function go(name, what) {
  const address = `#${name}${what === undefined ? "" : `/${what}`}`;
  if (location.hash === address) show();
  else location.hash = address;
}

function show() {
  const [name, what] = location.hash.slice(1).split("/");
  const [chosen, , draw] = VIEWS.find((one) => one[0] === name) ?? VIEWS[0];
  for (const tab of tabs.querySelectorAll("[role=tab]")) {
    tab.setAttribute("aria-selected", `${tab.dataset.view === chosen}`);
    tab.tabIndex = tab.dataset.view === chosen ? 0 : -1;
  }
  view.replaceChildren();
  const number = Number(what);
  draw(view, chosen === "tables" ? what : number >= 0 && number < profile.codes.length ? Math.floor(number) : 0);
}

function theme(toggle) {
  const root = document.documentElement;
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  if (root.dataset.theme) dark = root.dataset.theme === "dark";
  root.dataset.theme = dark !== toggle ? "dark" : "light";
  root.style.colorScheme = root.dataset.theme;
}

const KEYS = [["/", "search"], [`1 \u2026 ${VIEWS.length}`, "choose a view"], ["\u2191 \u2193 j k Enter", "walk through a table, open a row"],
  ["\u2190 \u2191 \u2192 \u2193 Enter Esc", "walk through the flame graph, enlarge a frame, show all"],
  ["+ \u2212 0 arrows", "enlarge and move the control flow and the timeline"], ["t", "light or dark"], ["?", "this list"]];

function help() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren(element("h2", {}, "Keys"), ...KEYS.map(([key, what]) => element("p", {}, element("kbd", {}, key), ` ${what}`)),
    element("form", { method: "dialog" }, element("button", {}, "Close")),
    element("details", {}, element("summary", {}, "Libraries on this page and their licences"), element("pre", {}, profile.licences)));
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.getElementById("help").open) return;
  if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
  const number = Number(event.key);
  if (event.key === "/") { const search = view.querySelector("input[type=search]"); if (!search) return; search.focus(); }
  else if (event.key === "?") help();
  else if (event.key === "t") theme(true);
  else if (number >= 1 && number <= VIEWS.length) go(VIEWS[number - 1][0]);
  else return;
  event.preventDefault();
});

document.getElementById("title").textContent = profile.title;
document.getElementById("summary").textContent = profile.summary;
for (const note of profile.notes) document.querySelector("header").insertBefore(element("p", { class: "dim" }, note), tabs);
tabs.append(...VIEWS.map(([name, label]) => element("button", { role: "tab", "data-view": name, onclick: () => go(name) }, label)),
  element("span", { class: "space" }), element("button", { onclick: () => theme(true), title: "Light or dark (t)" }, "\u25d0"),
  element("button", { onclick: help, title: "Keys and licences (?)" }, "?"));
tabs.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || event.target.getAttribute("role") !== "tab") return;
  const all = [...tabs.querySelectorAll("[role=tab]")];
  const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
  go(next.dataset.view);
  next.focus();
  event.preventDefault();
});
addEventListener("hashchange", show);
let drawnWidth = innerWidth;
addEventListener("resize", () => { if (innerWidth !== drawnWidth) { drawnWidth = innerWidth; show(); } });
theme(false);
show();
