// The fleet page. It holds the rows that the server says (api/fleet/events sends all, then what has
// changed), and makes of each row one element that stays for as long as its row does.
"use strict";

const MOST_ROWS = 200; // of a table at once; the filter finds the rest
const MOST_CELLS = 32; // of a worker
const sections = { findings: {}, queues: {}, workers: {}, running: {}, waiting: {}, dead_letters: {}, lost_workers: {} };
const made = new Map(); // element by section and id
let head = null, clockMs = 0, heardAtMs = 0, source = null, drawing = false;
const sorting = { running: ["since_ms", 1], waiting: ["since_ms", 1], dead_letters: ["died_at_ms", -1] };

const at = (id) => document.getElementById(id);
const nowMs = () => Date.now() + clockMs;

function element(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) found.setAttribute(name, value);
  }
  found.append(...children.filter((each) => each !== null && each !== undefined && each !== ""));
  return found;
}

function duration(ms) {
  const s = Math.max(0, ms / 1000);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(1)} d`;
}

const age = (ms) => ms ? element("time", { "data-since": ms }, duration(nowMs() - ms)) : "–";
const bytes = (n) => n === null || n === undefined ? "?" : n < 1e9 ? `${(n / 1048576).toFixed(0)} MiB` : `${(n / 1073741824).toFixed(1)} GiB`;
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const link = (path, text) => head.links && head.links.ui ? element("a", { href: `${head.links.ui.replace(/\/$/, "")}/${path}` }, text) : text;
const runLink = (row) => row.run_id ? link(`runs/${row.run_id}`, row.run_id.slice(0, 8)) : "–";

// -- queues

function oldestShare(row) {
  return row.oldest_waiting_at_ms ? (nowMs() - row.oldest_waiting_at_ms) / 1000 / row.objective_s : 0;
}

function bar(share) {
  const filled = element("div");
  filled.style.width = `${Math.min(100, share * 100)}%`;
  return element("div", { class: `bar ${share > 3 ? "error" : share > 1 ? "warn" : ""}`, "data-bar": "" }, filled);
}

function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const most = Math.max(1, ...values);
  const points = values.map((value, n) => `${n},${(30 - 28 * value / most).toFixed(1)}`).join(" ");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${Math.max(1, values.length - 1)} 32`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `backlog of the last hour, at most ${Math.max(0, ...values)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

function rates(row) {
  if (row.in_per_min === null || row.out_per_min === null) return "";
  return element("p", {}, "in ", element("strong", {}, `${row.in_per_min}`), " a minute, out ", element("strong", {}, `${row.out_per_min}`));
}

function queueCard(row) {
  const kinds = Object.entries(row.waiting).filter(([, n]) => n).map(([kind, n]) => counted(n, kind)).join(", ");
  const worst = row.backlog > row.backlog_error ? "error" : row.backlog > row.backlog_warn ? "warn" : "";
  const served = row.workers === 0
    ? element("strong", { class: row.backlog ? "error" : "warn" }, "no worker serves it")
    : element("span", {}, element("strong", {}, `${row.workers}`), row.workers === 1 ? " worker serves it" : " workers serve it");
  return element("article", { class: "card", "data-queue": row.name },
    element("h3", {}, row.declared ? link(`assets/${head.links.assets}/queue/${encodeURIComponent(row.name)}`, row.name) : row.name,
      element("small", { class: row.paused ? "warn" : worst }, row.paused ? "paused" : "")),
    element("p", {}, element("strong", { class: worst }, `${row.backlog}`), kinds ? ` waiting (${kinds}), ` : " waiting, ",
      element("strong", {}, `${row.claimed}`), " claimed, ", element("strong", {}, `${row.running}`), " running"),
    element("p", {}, "oldest waits ", age(row.oldest_waiting_at_ms), ` of ${duration(row.objective_s * 1000)}`),
    bar(oldestShare(row)),
    rates(row),
    row.backlog_history.length > 1 ? sparkline(row.backlog_history) : "",
    element("p", {}, served, row.dead_letters ? `, ${counted(row.dead_letters, "dead letter")}` : ""));
}

// -- workers

function cells(row) {
  const held = Object.values(sections.running).filter((each) => each.worker_id === row.worker_id);
  held.sort((a, b) => a.since_ms - b.since_ms);
  const free = Math.max(0, row.slots - row.busy_slots) + Math.max(0, row.run_slots - row.busy_run_slots);
  const list = element("ul", { class: "cells", "aria-label": "slots" });
  for (const each of held.slice(0, MOST_CELLS)) {
    const name = each.step_key || each.job || each.task_id;
    const what = `${each.kind} ${name} of run ${each.run_id || "none"}, ${each.state}`;
    list.append(element("li", { class: "busy", title: what }, age(each.since_ms), ` ${name}`));
  }
  if (held.length > MOST_CELLS) list.append(element("li", { class: "more" }, `${held.length - MOST_CELLS} more`));
  for (let n = 0; n < Math.min(free, MOST_CELLS - Math.min(held.length, MOST_CELLS)); n++) list.append(element("li", {}, "free"));
  return list;
}

function workerCard(row) {
  const state = { alive: "ok", draining: "warn", unready: "warn", expired: "error" }[row.state] || "";
  const said = row.state === "expired" ? element("span", {}, "silent for ", age(row.heard_at_ms)) : row.state;
  const older = Object.entries(row.older_code).map(([name, why]) => `${name}: ${why}`).join("; ");
  return element("article", { class: `card ${row.state}`, "data-worker": row.name },
    element("h3", {}, row.name, element("small", { class: state }, said)),
    element("p", {}, `${row.host}, pid ${row.pid}, up `, age(row.began_at_ms), `, ${row.version}`),
    element("p", {}, element("strong", {}, `${row.busy_slots}/${row.slots}`), " slots, ",
      element("strong", {}, `${row.busy_run_slots}/${row.run_slots}`), " run slots, ",
      element("strong", {}, bytes(row.memory_bytes)), ", ", element("strong", {}, row.busy_cpus.toFixed(1)), " CPUs"),
    element("p", {}, `queues ${row.queues.join(", ")}; done ${row.succeeded}, failed ${row.failed}`),
    row.trouble ? element("p", { class: "error" }, row.trouble) : "",
    older ? element("p", { class: "warn" }, older) : "",
    cells(row));
}

// -- tables

const columns = {
  running: [
    ["for", "since_ms", (row) => age(row.since_ms)], ["kind", "kind", (row) => row.kind], ["job", "job", (row) => row.job || "–"],
    ["step", "step_key", (row) => row.step_key || "–"], ["run", "run_id", runLink], ["queue", "queue", (row) => row.queue],
    ["worker", "worker", (row) => row.worker], ["CPU", "cpu_s", (row) => row.cpu_s === null ? "–" : duration(row.cpu_s * 1000)],
    ["memory", "memory_bytes", (row) => row.memory_bytes === null ? "–" : bytes(row.memory_bytes)], ["state", "state", (row) => row.state],
  ],
  waiting: [
    ["for", "since_ms", (row) => age(row.since_ms)], ["kind", "kind", (row) => row.kind], ["job", "job", (row) => row.job || "–"],
    ["step", "step_key", (row) => row.step_key || "–"], ["run", "run_id", runLink], ["queue", "queue", (row) => row.queue],
  ],
  dead_letters: [
    ["died", "died_at_ms", (row) => age(row.died_at_ms)], ["kind", "kind", (row) => row.kind], ["queue", "queue", (row) => row.queue],
    ["run", "run_id", runLink], ["why", "reason", (row) => row.reason],
  ],
};

function tableHead(name) {
  const row = element("tr");
  for (const [title, field] of columns[name]) {
    const [by, way] = sorting[name];
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      sorting[name] = [field, sorting[name][0] === field ? -sorting[name][1] : 1];
      at(name).replaceChildren();
      drawTable(name);
    });
    row.append(element("th", { scope: "col", "aria-sort": by === field ? (way > 0 ? "ascending" : "descending") : null }, button));
  }
  return element("thead", {}, row);
}

function wanted(row) {
  const words = at("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [row.run_id, row.job, row.step_key, row.worker, row.host, row.task_id, row.queue].join(" ").toLowerCase();
  return (!at("queue").value || row.queue === at("queue").value)
    && (!at("kind").value || row.kind === at("kind").value) && words.every((word) => text.includes(word));
}

function drawTable(name) {
  const table = at(name), [field, way] = sorting[name];
  if (!table.tHead) table.append(tableHead(name), element("tbody"));
  const all = Object.entries(sections[name]);
  const rows = name === "dead_letters" ? all : all.filter(([, row]) => wanted(row));
  const order = (value) => value === null || value === undefined ? "" : value;
  rows.sort(([, a], [, b]) => (order(a[field]) < order(b[field]) ? -way : order(a[field]) > order(b[field]) ? way : 0));
  const shown = rows.slice(0, MOST_ROWS).map(([id, row]) => keep(name, id, row, () =>
    element("tr", {}, ...columns[name].map(([title, , cell]) => element("td", { class: title === "why" ? "long" : null }, cell(row))))));
  arrange(table.tBodies[0], shown);
  const count = at(`${name === "dead_letters" ? "dead" : name}-count`);
  const said = rows.length === all.length ? `${all.length}` : `${rows.length} of ${all.length}`;
  say(count, rows.length > MOST_ROWS ? `${said}, the first ${MOST_ROWS} are shown` : said);
}

// -- keeping elements

// What an element was made of, so that it is made again when that has changed, and else stays.
function keep(section, id, row, make, also = "") {
  const key = `${section} ${id}`, known = made.get(key);
  if (known && known.row === row && known.also === also) return known.element;
  const found = make();
  if (known && known.element.isConnected) known.element.replaceWith(found);
  made.set(key, { row, also, element: found });
  return found;
}

function arrange(parent, wantedElements) {
  const keepThem = new Set(wantedElements);
  for (const child of [...parent.children]) if (!keepThem.has(child)) child.remove();
  wantedElements.forEach((each, n) => { if (parent.children[n] !== each) parent.insertBefore(each, parent.children[n] || null); });
}

function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

// -- drawing

function drawHead() {
  say(at("namespace"), head.namespace);
  say(at("release"), `dagster-taskiq-kit ${head.release}`);
  const wrong = Object.keys(sections.findings).length;
  const verdict = head.away ? "The broker is away" : wrong ? `${counted(wrong, "check")} ${wrong === 1 ? "fails" : "fail"}` : "All is well";
  say(at("verdict"), verdict);
  at("verdict").className = head.severity;
  at("away").hidden = !head.away;
  document.body.classList.toggle("stale", Boolean(head.away));
  if (head.totals && "backlog" in head.totals) {
    const shown = [["waiting", head.totals.backlog], ["running", head.totals.running], ["workers", head.totals.workers], ["dead letters", head.totals.dead_letters]];
    if (at("totals").children.length !== shown.length) at("totals").replaceChildren(...shown.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"))));
    shown.forEach(([, value], n) => say(at("totals").children[n].lastChild, `${value}`));
  }
  if (head.broker && "latency_ms" in head.broker) {
    const b = head.broker, most = b.max_memory_bytes ? ` of ${bytes(b.max_memory_bytes)}` : "";
    say(at("broker"), `${b.version || "broker"}, ${b.latency_ms} ms, ${bytes(b.used_memory_bytes)}${most}, ${b.clients ?? "?"} clients${b.append_only === false ? ", no append-only file" : ""}`);
  }
}

function drawAway() {
  if (!head || !head.away) return;
  const since = head.taken_at_ms ? ` What is shown is ${duration(nowMs() - head.taken_at_ms)} old.` : "";
  say(at("away"), `${head.away}${since}`);
}

function drawFindings() {
  at("findings-section").hidden = !Object.keys(sections.findings).length;
  arrange(at("findings"), Object.entries(sections.findings)
    .sort(([, a], [, b]) => (a.severity === b.severity ? 0 : a.severity === "error" ? -1 : 1))
    .map(([id, row]) => keep("findings", id, row, () => element("li", { class: row.severity },
      element("p", {}, element("strong", { class: row.severity }, row.severity.toUpperCase()), ` ${row.subject} ${row.check}: ${row.sentence}`),
      row.remedy ? element("p", {}, row.remedy) : ""))));
}

function drawCards(name, container, make, also = () => "") {
  const rows = Object.entries(sections[name]);
  say(at(`${name}-count`), `${rows.length}`);
  rows.sort(([, a], [, b]) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const cards = rows.map(([id, row]) => keep(name, id, row, () => make(row), also(row)));
  arrange(container, cards.length ? cards : [keep(name, "", null, () => element("p", { class: "lone" }, `No ${name} yet.`))]);
}

function drawQueueChoice() {
  const names = Object.keys(sections.queues).sort(), choice = at("queue");
  if ([...choice.options].slice(1).map((each) => each.value).join("\n") === names.join("\n")) return;
  const chosen = choice.value;
  choice.replaceChildren(element("option", { value: "" }, "all"), ...names.map((name) => element("option", { value: name }, name)));
  choice.value = names.includes(chosen) ? chosen : "";
}

// A hidden page has no frames: it is drawn once when it is shown again, and says in its title how it is.
function drawSoon() {
  if (head) document.title = `${head.severity === "ok" ? "" : `${head.severity.toUpperCase()} `}${head.namespace} fleet`;
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; draw(); });
}

function draw() {
  if (!head) return;
  const heldBy = {};
  for (const [id, row] of Object.entries(sections.running)) heldBy[row.worker_id] = `${heldBy[row.worker_id] || ""}${id} ${row.state} ${row.job}\n`;
  drawHead();
  drawAway();
  drawFindings();
  drawCards("queues", at("queues"), queueCard);
  drawCards("workers", at("workers"), workerCard, (row) => heldBy[row.worker_id] || "");
  arrange(at("lost"), Object.entries(sections.lost_workers).map(([id, row]) => keep("lost", id, row, () =>
    element("li", {}, `Worker ${row.worker_id} on ${row.host || "a host that is not known any more"} was given up `, age(row.at_ms), " ago."))));
  drawQueueChoice();
  for (const name of ["running", "waiting", "dead_letters"]) drawTable(name);
  at("dead-section").hidden = !Object.keys(sections.dead_letters).length;
}

function tick() {
  for (const each of document.querySelectorAll("time[data-since]")) say(each, duration(nowMs() - Number(each.dataset.since)));
  for (const card of document.querySelectorAll("[data-queue]")) {
    const row = sections.queues[card.dataset.queue], old = card.querySelector("[data-bar]");
    if (row && row.oldest_waiting_at_ms) old.replaceWith(bar(oldestShare(row)));
  }
  drawAway();
  // Who only listens does not learn that the other side is gone: ask anew.
  if (Date.now() - heardAtMs > 15000) { lost(); follow(); }
}

// -- following

function take(said) {
  head = said.head;
  heardAtMs = Date.now();
  if (head.taken_at_ms && !head.away) clockMs = head.taken_at_ms - Date.now();
  for (const [name, ids] of Object.entries(said.gone)) {
    for (const id of ids) { delete sections[name][id]; made.delete(`${name} ${id}`); }
  }
  for (const [name, rows] of Object.entries(said.rows)) Object.assign(sections[name], rows);
  drawSoon();
}

function lost() {
  if (!head) { say(at("verdict"), "The exporter does not answer."); return; }
  head = { ...head, severity: "error", away: "The exporter does not answer; the page goes on when it does." };
  drawSoon();
}

function follow() {
  if (source) source.close();
  const mine = source = new EventSource("api/fleet/events");
  let first = true;
  heardAtMs = Date.now();
  mine.onmessage = (message) => {
    // After a break the server says all again.
    if (first) for (const name of Object.keys(sections)) sections[name] = {};
    first = false;
    take(JSON.parse(message.data));
  };
  mine.onerror = () => {
    first = true;
    lost();
    // A browser gives up by itself when it was refused.
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => { if (source === mine) follow(); }, 2000);
  };
}

for (const id of ["words", "queue", "kind"]) at(id).addEventListener("input", () => drawSoon());
at("filter").addEventListener("submit", (event) => event.preventDefault());
setInterval(tick, 1000);
follow();
