// The page: what is asked, what is answered, and how both show in the room.
import { EDGES, Viewer, corners, unpackCloud } from "./viewer.js";
import { source } from "./source.js";

const $ = (id) => document.getElementById(id);
const settings = JSON.parse(document.body.dataset.settings);
const api = source(settings);
const COLOURS = { found: "#f97316", other: "#8b5cf6", click: "#0d9488" };
const state = { room: null, facts: null, view: 0, kind: "ask", measuring: false, picked: [], depth: false, alike: null, box: null, chats: {}, ready: false };
const viewer = new Viewer($("stage"), $("labels"));
window.stereopsis = { state, viewer };

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// ---- rooms -----------------------------------------------------------------
async function listRooms() {
  const { rooms } = await api.rooms();
  const select = $("room");
  for (const room of rooms) {
    let option = [...select.options].find((each) => each.value === room.id);
    if (!option) {
      option = new Option(room.title, room.id);
      select.append(option);
    }
    option.disabled = room.state === "failed";
    option.textContent = room.title + (room.state === "open" ? "" : room.state === "failed" ? " (cannot be opened)" : " …");
    if (room.error) option.title = room.error;
  }
  const first = rooms.find((room) => room.state === "open");
  if (!state.facts && !state.opening && first) await openRoom(location.hash.slice(1) && rooms.some((r) => r.id === location.hash.slice(1) && r.state === "open") ? location.hash.slice(1) : first.id);
  if (!first && rooms.length && rooms.every((room) => room.state === "failed")) $("facts").textContent = rooms[0].error;
  if (rooms.some((room) => room.state === "waiting" || room.state === "opening")) setTimeout(listRooms, 500);
}

async function openRoom(id) {
  state.opening = id;
  try {
    const [facts, cloud] = await Promise.all([api.room(id), api.cloud(id)]);
    Object.assign(state, { room: id, facts, view: 0, box: null, alike: null, picked: [] });
    $("room").value = id;
    history.replaceState(null, "", `#${id}`);
    viewer.setRoom(facts, unpackCloud(cloud));
    $("facts").textContent = facts.facts;
    showVerdict(facts);
    $("slider").max = facts.views.length - 1;
    measuring(false);
    showChat();
    showSuggestions();
    await loadMap();
    showView(0);
  } catch (error) {
    say(errorCard(error));
  } finally {
    state.opening = null;
  }
}

function showVerdict({ verdict, scale }) {
  const box = $("verdict");
  box.textContent = verdict.words.replace(/, \d+ questions and descriptions/, "") + " ";
  const notes = [...verdict.notes];
  if (!scale.known) notes.push(`no metres: ${scale.words}`);
  for (const part of notes.join("; ").split(/'(stereopsis [^']+)'/)) box.append(part.startsWith("stereopsis ") ? make("code", "", part) : part);
}

// ---- views -----------------------------------------------------------------
function showView(number) {
  const view = state.facts.views[number];
  state.view = number;
  $("slider").value = number;
  $("viewname").textContent = `View ${number + 1} of ${state.facts.views.length}`;
  $("depth").disabled = !view.depth;
  $("picture").src = api.picture(state.room, number, state.depth && view.depth ? "depth" : "colour");
  viewer.selectView(number);
  drawMap();
}

$("picture").addEventListener("load", () => {
  const { naturalWidth: w, naturalHeight: h } = $("picture");
  $("view").style.width = `${($("view").clientHeight * w) / h}px`;
  drawOver();
});

function inView(view, p) {
  const m = view.pose;
  const d = [0, 1, 2].map((i) => p[i] - m[i][3]);
  const c = [0, 1, 2].map((j) => m[0][j] * d[0] + m[1][j] * d[1] + m[2][j] * d[2]);
  return c;
}

function drawOver() {
  const canvas = $("over");
  const view = state.facts.views[state.view];
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  const [fx, fy, cx, cy] = view.camera;
  const sx = canvas.width / view.size[0];
  const sy = canvas.height / view.size[1];
  const onto = (c) => [(fx * c[0] / c[2] + cx) * sx, (fy * c[1] / c[2] + cy) * sy];
  drawAlike(pen, canvas, view);
  if (state.box) {
    const c = corners(state.box.box).map((p) => inView(view, p));
    pen.strokeStyle = state.box.colour;
    pen.lineWidth = 2.2 * ratio;
    pen.beginPath();
    for (const [i, j] of EDGES) {
      let [a, b] = [c[i], c[j]];
      if (a[2] < 0.05 && b[2] < 0.05) continue;
      if (a[2] < 0.05 || b[2] < 0.05) {
        const t = (0.05 - a[2]) / (b[2] - a[2]);
        const cut = a.map((v, k) => v + t * (b[k] - v));
        if (a[2] < 0.05) a = cut; else b = cut;
      }
      pen.moveTo(...onto(a));
      pen.lineTo(...onto(b));
    }
    pen.stroke();
  }
  for (const p of state.picked) {
    const c = inView(view, p);
    if (c[2] < 0.05) continue;
    pen.fillStyle = COLOURS.click;
    pen.beginPath();
    pen.arc(...onto(c), 4 * ratio, 0, 7);
    pen.fill();
  }
}

function drawAlike(pen, canvas, view) {
  if (!state.alike) return;
  const at = state.alike.views.indexOf(view.name);
  if (at < 0) return;
  const heat = state.alike.similarity[at];
  const all = state.alike.similarity.flat(2).sort((a, b) => a - b);
  const [low, high] = [all[Math.floor(all.length * 0.1)], all[all.length - 2]];
  const side = Math.min(canvas.width, canvas.height); // the model sees the centre square
  const [left, top] = [(canvas.width - side) / 2, (canvas.height - side) / 2];
  const cell = side / heat.length;
  heat.forEach((row, r) => row.forEach((value, c) => {
    const share = Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
    pen.fillStyle = `hsla(${220 - 220 * share},90%,52%,${0.12 + 0.5 * share})`;
    pen.fillRect(left + c * cell, top + r * cell, cell, cell);
  }));
}

$("view").addEventListener("click", async (event) => {
  const r = $("view").getBoundingClientRect();
  try {
    const { point } = await api.call(state.room, "point", { view: state.view, x: (event.clientX - r.left) / r.width, y: (event.clientY - r.top) / r.height });
    picked(point);
  } catch (error) {
    hint(error.message);
  }
});

// ---- from above ------------------------------------------------------------
async function loadMap() {
  state.map = null;
  if (!state.facts.above) return;
  const image = new Image();
  image.src = api.above(state.room);
  await image.decode().catch(() => {});
  state.map = image;
}

function drawMap() {
  const canvas = $("map");
  const pen = canvas.getContext("2d");
  const { facts } = state;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  canvas.style.display = facts && facts.above && state.map ? "" : "none";
  if (!facts || !facts.above || !state.map) return;
  const { origin, metres_per_pixel: m, size } = facts.above;
  const scale = canvas.width / size;
  const at = (p) => [((p[0] - origin[0]) / m) * scale, ((origin[1] - p[1]) / m) * scale];
  pen.drawImage(state.map, 0, 0, canvas.width, canvas.height);
  pen.strokeStyle = "#2563ebaa";
  pen.lineWidth = 3;
  pen.beginPath();
  facts.views.forEach((v, i) => { const p = at([v.pose[0][3], v.pose[1][3]]); if (i) pen.lineTo(...p); else pen.moveTo(...p); });
  pen.stroke();
  const arrow = (p, angle, colour, r) => {
    const [x, y] = at(p);
    pen.fillStyle = colour;
    pen.beginPath();
    pen.moveTo(x, y);
    pen.arc(x, y, r * 2.6, -angle - 0.5, -angle + 0.5);
    pen.closePath();
    pen.globalAlpha = 0.45;
    pen.fill();
    pen.globalAlpha = 1;
    pen.beginPath();
    pen.arc(x, y, r / 2, 0, 7);
    pen.fill();
  };
  const v = facts.views[state.view].pose;
  arrow([v[0][3], v[1][3]], Math.atan2(v[1][2], v[0][2]), "#f97316", 14);
  const e = viewer.camera.position;
  const to = viewer.controls.target;
  arrow([e.x, e.y], Math.atan2(to.y - e.y, to.x - e.x), "#2563eb", 14);
  if (state.box) {
    const b = state.box.box;
    const [x0, y0] = at([b[0] - b[3] / 2, b[1] + b[4] / 2]);
    const [x1, y1] = at([b[0] + b[3] / 2, b[1] - b[4] / 2]);
    pen.strokeStyle = state.box.colour;
    pen.lineWidth = 4;
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}
viewer.onMove = drawMap;

// ---- chat ------------------------------------------------------------------
function showChat() {
  const chat = $("chat");
  state.chats[state.room] ??= [];
  chat.replaceChildren(...state.chats[state.room]);
  chat.scrollTop = chat.scrollHeight;
}

function say(element) {
  (state.chats[state.room] ??= []).push(element);
  $("chat").append(element);
  $("chat").scrollTop = $("chat").scrollHeight;
  return element;
}

function errorCard(error) {
  const card = make("div", "it error");
  card.append(make("p", "", error.message));
  return card;
}

function waiting() {
  const card = make("div", "it");
  card.append(make("p", "busy", state.ready ? "Looking" : "The model is still being loaded; your question waits for it"));
  return card;
}

async function converse(words, work) {
  const room = state.room;
  say(make("div", "me", words));
  const card = say(waiting());
  try {
    await work(card);
  } catch (error) {
    card.className = "it error";
    card.replaceChildren(make("p", "", error.message));
  }
  if (room === state.room) $("chat").scrollTop = $("chat").scrollHeight;
}

function thumbs(card, names, numbers) {
  const row = make("div", "thumbs");
  for (const number of numbers ?? names.map((name) => state.facts.views.findIndex((v) => v.name === name)).filter((n) => n >= 0)) {
    const button = make("button");
    button.title = `View ${number + 1}`;
    const image = make("img");
    image.src = api.picture(state.room, number, "colour");
    image.alt = button.title;
    button.append(image);
    button.addEventListener("click", () => showView(number));
    row.append(button);
  }
  card.append(row);
}

function links(card, python) {
  const row = make("div", "links");
  const copy = make("button", "", "Copy as Python");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    const text = `from stereopsis.client import Client\n\nask = Client("${location.origin}")\nprint(${python})\n`;
    await navigator.clipboard?.writeText(text).catch(() => {});
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy as Python"; }, 1500);
  });
  row.append(copy);
  card.append(row);
}

const quoted = (value) => JSON.stringify(value);

function ask(words) {
  return converse(words, async (card) => {
    const reply = await api.call(state.room, "ask", { question: words });
    card.replaceChildren(make("p", "said", reply.answer || "(nothing)"), make("p", "note", `${reply.views.length} views shown to the model · ${reply.seconds.toFixed(2)} s`));
    thumbs(card, reply.views);
    links(card, `ask.ask(${quoted(state.room)}, ${quoted(words)})`);
  });
}

function find(words) {
  return converse(words, async (card) => {
    const reply = await api.call(state.room, "find", { expression: words });
    const rows = reply.ranked.map((each, i) => ({ ...each, name: each.label || `box ${each.index + 1}`, colour: i ? COLOURS.other : COLOURS.found }));
    const none = { name: "no such thing", score: reply.none_score, none: true };
    const sorted = [...rows, none].sort((a, b) => b.score - a.score);
    card.replaceChildren(make("p", "said", reply.found ? "Found it" : "There is no such thing here"));
    card.append(make("p", "note", `cosine of the words with each candidate, and with "no such thing" · ${reply.seconds.toFixed(2)} s`));
    const list = make("ol", "rank");
    for (const each of sorted) {
      const item = make("li", each.none ? "none" : "");
      const button = make("button");
      button.type = "button";
      const bar = make("span", "bar");
      const fill = make("i");
      fill.style.width = `${Math.max(2, Math.min(100, 100 * (each.score - Math.min(0, sorted.at(-1).score)) / (sorted[0].score - Math.min(0, sorted.at(-1).score) || 1)))}%`;
      bar.append(fill);
      button.append(make("span", "", String(sorted.indexOf(each) + 1)), make("span", "", each.name), bar, make("span", "", each.score.toFixed(2)));
      if (each.none) button.disabled = true;
      else button.addEventListener("click", () => showBox(each.box, COLOURS.other, each.name));
      item.append(button);
      list.append(item);
    }
    card.append(list);
    if (reply.found) {
      showBox(reply.box, COLOURS.found, words, reply.seen_in[0]);
      thumbs(card, [], reply.seen_in);
    }
    links(card, `ask.find(${quoted(state.room)}, ${quoted(words)})`);
  });
}

function showBox(box, colour, text, view = null) {
  state.box = { box, colour };
  viewer.mark([{ box, colour, text: text.length > 36 ? `${text.slice(0, 35)}…` : text }]);
  viewer.toBox(box);
  if (view !== null && view !== undefined) showView(view);
  drawOver();
  drawMap();
}

// ---- clicks and measuring ----------------------------------------------------
function picked(point) {
  if (state.alikeMode) return alike(point);
  if (state.measuring) return measurePoint(point);
  state.picked = [point];
  viewer.mark([], null, [point]);
  drawOver();
  if (!settings.model) return whereIs(point);
  return converse(`What is at ${point.map((v) => v.toFixed(2)).join(", ")}?`, async (card) => {
    const reply = await api.call(state.room, "describe", { point });
    card.replaceChildren(make("p", "said", reply.answer || "(nothing)"));
    card.append(make("p", "note", `${reply.thing.label ? `candidate box "${reply.thing.label}"` : reply.thing.index === null ? "no candidate box there: 40 cm around the point" : "a candidate box"} · ${reply.thing.box.slice(3).map((v) => v.toFixed(2)).join(" x ")}${state.facts.scale.known ? " m" : ""}`));
    state.box = { box: reply.thing.box, colour: COLOURS.click };
    viewer.mark([{ box: reply.thing.box, colour: COLOURS.click, text: reply.thing.label || "here" }], null, [point]);
    if (reply.seen_in.length) showView(reply.seen_in[0]);
    drawOver();
    links(card, `ask.describe(${quoted(state.room)}, point=${quoted(point)})`);
  });
}
viewer.onPick = picked;

async function whereIs(point) {
  try { hint((await api.call(state.room, "measure", { a: point })).sentence); } catch (error) { hint(error.message); }
}

function measuring(on) {
  state.measuring = on;
  state.picked = [];
  if (on && state.box) {
    state.box = null;
    viewer.mark([]);
    drawOver();
  }
  $("measure").setAttribute("aria-pressed", on);
  $("stage").classList.toggle("measuring", on);
  hint(on ? "Click two places, in the room or in a view" : "");
}

async function measurePoint(point) {
  if (state.picked.length > 1) state.picked = [];
  state.picked.push(point);
  viewer.mark([], null, state.picked);
  drawOver();
  if (state.picked.length < 2) return hint("And the second place");
  const [a, b] = state.picked;
  return converse("How far apart are these two places?", async (card) => {
    const found = await api.call(state.room, "measure", { a, b });
    const short = found.sentence.replace(" m apart", " m");
    card.replaceChildren(make("p", "said", short));
    const sure = found.uncertainty === null ? "no view saw both places, so nobody knows how sure this is" : `± two standard deviations, from ${found.things.map((t) => t.views).join(" and ")} views`;
    card.append(make("p", "note", `${found.horizontal.toFixed(2)} m along the floor, ${found.vertical.toFixed(2)} m in height · ${sure}`));
    viewer.mark([], [a, b], [a, b], short);
    hint("");
    links(card, `ask.measure(${quoted(state.room)}, ${quoted(a)}, ${quoted(b)})["sentence"]`);
  });
}

async function alike(point) {
  try {
    state.alike = await api.call(state.room, "similar", { point });
    state.picked = [point];
    viewer.mark([], null, [point]);
    const at = state.facts.views.findIndex((v) => v.name === state.alike.views[state.alike.cell[0]]);
    showView(at >= 0 ? at : state.view);
    hint("Red looks like the same thing to the model, blue does not; move the slider");
  } catch (error) { hint(error.message); }
}

function hint(words) { $("hint").textContent = words ?? ""; }

// ---- controls ----------------------------------------------------------------
function kind(name) {
  state.kind = name;
  document.querySelectorAll("[data-kind]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.kind === name));
  $("words").placeholder = name === "ask" ? "Ask about this room …" : "Find the chair by the window …";
}

function showSuggestions() {
  $("suggest").replaceChildren(...state.facts.suggestions.map(({ kind: what, text }) => {
    const button = make("button", "", text);
    button.type = "button";
    button.dataset.what = what;
    button.addEventListener("click", () => { kind(what); (what === "find" ? find : ask)(text); });
    return button;
  }));
}

function toggle(id, act) {
  $(id).addEventListener("click", () => {
    const on = $(id).getAttribute("aria-pressed") !== "true";
    $(id).setAttribute("aria-pressed", on);
    act(on);
  });
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* private windows */ }
  viewer.draw();
}

let kept = null;
try { kept = localStorage.getItem("theme"); } catch { /* private windows */ }
theme(kept ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.querySelectorAll("[data-kind]").forEach((b) => b.addEventListener("click", () => { kind(b.dataset.kind); $("words").focus(); }));
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("words").value.trim();
  if (!words || !state.facts) return;
  $("words").value = "";
  (state.kind === "find" ? find : ask)(words);
});
$("room").addEventListener("change", () => openRoom($("room").value));
$("slider").addEventListener("input", () => showView(Number($("slider").value)));
$("fly").addEventListener("click", () => viewer.toView(state.view));
$("home").addEventListener("click", () => viewer.home());
$("top").addEventListener("click", () => viewer.top());
$("measure").addEventListener("click", () => measuring(!state.measuring));
toggle("cameras", (on) => { viewer.cameras.visible = on; viewer.draw(); });
toggle("boxes", (on) => { viewer.candidates.visible = on; viewer.draw(); });
toggle("depth", (on) => { state.depth = on; showView(state.view); });
toggle("alike", (on) => { state.alikeMode = on; if (!on) { state.alike = null; drawOver(); } hint(on ? "Pick a place: what looks like it to the model?" : ""); });
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input,select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const press = { m: "measure", h: "home", u: "top", c: "cameras", b: "boxes", t: "theme" }[event.key];
  if (press) $(press).click();
  else if (event.key === "ArrowRight" || event.key === "ArrowLeft") showView(Math.max(0, Math.min(state.facts.views.length - 1, state.view + (event.key === "ArrowRight" ? 1 : -1))));
  else if (event.key === "/") { event.preventDefault(); $("words").focus(); }
  else if (event.key === "Escape") measuring(false);
});
document.body.classList.toggle("nomodel", !settings.model);
if (!settings.model) $("alike").hidden = true;

async function watch() {
  const chip = $("state");
  try {
    const status = await api.status();
    state.ready = status.state === "ready";
    chip.className = status.state === "failed" ? "bad" : "";
    chip.textContent = { none: "no model", loading: "loading the model …", ready: status.model, failed: "no model" }[status.state];
    chip.title = status.error ?? status.precision ?? "";
    if (status.state === "ready" && !status.grounds) { const f = document.querySelector("[data-kind=find]"); f.disabled = true; f.title = "This model has no trained grounding head"; }
  } catch {
    chip.className = "bad";
    chip.textContent = "the server is gone";
  }
  setTimeout(watch, state.ready ? 10000 : 700);
}

if (!settings.offline) watch();
else $("state").textContent = "offline";
listRooms().catch((error) => { $("facts").textContent = error.message; });
