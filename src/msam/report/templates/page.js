"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = [...document.querySelectorAll(".plot")];
const filter = document.getElementById("filter");
const boxes = [...filter.querySelectorAll("input[type=checkbox]")];
const rows = new Set(boxes.map(box => box.value));
const gone = new Set();        // labels of rows that are hidden, everywhere
const hidden = new WeakMap();  // section -> labels of modalities that its legends have switched off
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");

function theme(three) {
  const css = getComputedStyle(root), value = name => css.getPropertyValue(name).trim();
  const ink = value("--soft"), grid = value("--grid");
  const axis = name => ({ [`${name}.gridcolor`]: grid, [`${name}.zerolinecolor`]: ink, [`${name}.linecolor`]: grid });
  const axes = three ? ["scene.xaxis", "scene.yaxis", "scene.zaxis"] : ["xaxis", "yaxis"];
  return {
    "font.color": ink, "font.family": getComputedStyle(document.body).fontFamily, "font.size": 12,
    "hoverlabel.bgcolor": value("--ground"), "hoverlabel.bordercolor": grid, "hoverlabel.font.color": value("--ink"),
    ...Object.assign({}, ...axes.map(axis)),
  };
}

// What is shown

function off(element) {
  const section = element.closest(".block");
  if (!hidden.has(section)) hidden.set(section, new Set());
  return hidden.get(section);
}

function shows(element, label) {
  return rows.has(label) ? !gone.has(label) : !off(element).has(label);
}

function state(plot, data) {  // visibility of every trace; dots close ranks
  const visible = data.map(trace => shows(plot, trace.legendgroup));
  const lanes = figures[plot.id].layout.meta?.lanes;
  if (!lanes) return [{ visible }, {}];
  const left = lanes.filter(label => !gone.has(label)), n = Math.max(left.length, 1);
  const y = data.map(trace => trace.x.map(() => left.indexOf(trace.legendgroup)));
  return [{ visible, y }, {
    "yaxis.tickvals": left.map((_, lane) => lane), "yaxis.ticktext": left, "yaxis.range": [n - 0.5, -0.5],
    "yaxis.nticks": n, height: 64 + 30 * n,
  }];
}

async function draw(plot) {
  if (plot.dataset.drawn || !plot.offsetParent) return;
  plot.dataset.drawn = "yes";
  const { data, layout } = structuredClone(figures[plot.id]), three = plot.matches(".surface");
  if (!three && matchMedia("(pointer: fine)").matches) layout.dragmode = "zoom";
  if (three && plot.camera) layout.scene.camera = plot.camera;
  await Plotly.newPlot(plot, data, layout, { displayModeBar: false, responsive: true });
  const [traces, axes] = state(plot, data);
  await Plotly.update(plot, traces, { ...theme(three), ...axes });
  if (three) plot.on("plotly_relayout", change => change["scene.camera"] && turn(plot, change["scene.camera"]));
}

async function drawAll() {
  for (const plot of plots.filter(plot => !plot.matches(".surface"))) {
    await draw(plot);
    await new Promise(resume => setTimeout(resume));
  }
  root.dataset.ready = "yes";
}

function apply() {
  const words = filter.querySelector("input[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  gone.clear();
  for (const box of boxes) {
    const found = words.every(word => box.value.toLowerCase().includes(word));
    box.parentElement.hidden = !found;
    if (!found || !box.checked) gone.add(box.value);
  }
  filter.querySelector("output").textContent = `${rows.size - gone.size} of ${rows.size} shown`;
  for (const element of document.querySelectorAll("[data-row]")) {
    element.hidden = gone.has(element.dataset.row) || gone.has(element.dataset.against);
  }
  for (const entry of document.querySelectorAll(".legend button")) {
    entry.setAttribute("aria-pressed", shows(entry, entry.dataset.label));
  }
  for (const plot of plots) {
    if (plot.matches(".surface") || !plot.offsetParent) continue;
    if (plot.dataset.drawn) Plotly.update(plot, ...state(plot, plot.data));
    else if (root.dataset.ready) draw(plot);
  }
}

function toggle(entry) {
  const label = entry.dataset.label, box = boxes.find(box => box.value === label), set = off(entry);
  if (box) box.checked = !box.checked;
  else if (!set.delete(label)) set.add(label);
  apply();
}

function choose(tab) {
  for (const other of tab.parentElement.children) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  for (const plot of document.getElementById(tab.getAttribute("aria-controls")).querySelectorAll(".plot")) {
    if (!plot.dataset.drawn) { draw(plot); continue; }
    Plotly.Plots.resize(plot);
    Plotly.update(plot, ...state(plot, plot.data));
  }
}

// Surfaces: drawn when they come in sight, the oldest given up, since a browser has about 16 3-D contexts; all of a
// figure turn together

const MOST = 9, alive = [];

function turn(plot, camera) {
  for (const other of plot.closest(".panels").querySelectorAll(".plot")) {
    if (JSON.stringify(other.camera?.eye) === JSON.stringify(camera.eye)) continue;
    other.camera = camera;
    if (other !== plot && other.dataset.drawn) Plotly.relayout(other, { "scene.camera": camera });
  }
}

function view(button) {
  const group = button.closest("figure"), plot = group.querySelector(".plot.surface");
  const camera = plot.camera ?? figures[plot.id].layout.scene.camera, { x, y, z } = camera.eye;
  const by = Number(button.dataset.turn) * Math.PI / 180;
  const eye = button.dataset.eye ? JSON.parse(button.dataset.eye)
    : { x: x * Math.cos(by) - y * Math.sin(by), y: x * Math.sin(by) + y * Math.cos(by), z };
  for (const other of group.querySelectorAll(".plot.surface")) {
    other.camera = { ...camera, eye };
    if (other.dataset.drawn) Plotly.relayout(other, { "scene.camera": other.camera });
  }
}

const sight = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.seen = isIntersecting ? "yes" : "";
    if (!isIntersecting || target.dataset.drawn) continue;
    draw(target);
    alive.push(target);
    const old = alive.length > MOST ? alive.findIndex(plot => !plot.dataset.seen) : -1;
    if (old >= 0) {
      const [plot] = alive.splice(old, 1);
      Plotly.purge(plot);
      delete plot.dataset.drawn;
    }
  }
}, { rootMargin: "200px" });
if (document.createElement("canvas").getContext("webgl")) {
  for (const plot of plots) if (plot.matches(".surface")) sight.observe(plot);
} else root.dataset.flat = "yes";

// Colours, copies, keys

function recolour() {
  for (const plot of plots) if (plot.dataset.drawn) Plotly.relayout(plot, theme(plot.matches(".surface")));
}

function isDark() { return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches; }

async function copy(button) {
  const source = document.getElementById(button.dataset.copy), text = source.textContent.trim();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(source);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.matches("[role=tab]")) choose(button);
  else if (button.matches(".legend button")) toggle(button);
  else if (button.matches(".views button")) view(button);
  else if (button.dataset.copy) copy(button);
  else if (button.id === "theme") { root.dataset.theme = isDark() ? "light" : "dark"; recolour(); }
  else if (button.dataset.check) {
    for (const box of boxes) if (!box.parentElement.hidden) box.checked = button.dataset.check === "all";
    apply();
  }
});
document.addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tab = event.target.closest("[role=tab]");
  if (!step || !tab) return;
  const tabs = [...tab.parentElement.children], next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
  choose(next);
  next.focus();
});
filter.addEventListener("input", apply);
filter.addEventListener("submit", event => event.preventDefault());
dark.addEventListener("change", recolour);

// On paper: light colours, plots as wide as their column there; surfaces give way to their still pictures, by style

const PAPER = { wide: 640, narrow: 320 };
let before;

function resize(width) {
  for (const plot of plots) {
    if (!plot.dataset.drawn || plot.matches(".surface") || !plot.offsetParent) continue;
    Plotly.relayout(plot, width ? { width: width(plot) } : { width: null, autosize: true });
  }
}

addEventListener("beforeprint", () => {
  before = root.dataset.theme;
  root.dataset.theme = "light";
  recolour();
  resize(plot => plot.closest(".columns-1") ? PAPER.wide : PAPER.narrow);
});
addEventListener("afterprint", () => {
  if (before) root.dataset.theme = before; else delete root.dataset.theme;
  recolour();
  resize();
});
apply();
drawAll();
