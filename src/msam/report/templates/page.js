"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = [...document.querySelectorAll(".plot")];
const hidden = new WeakMap();  // section -> labels that its legends have switched off

function theme() {
  const css = getComputedStyle(document.documentElement);
  const ink = css.getPropertyValue("--soft").trim(), grid = css.getPropertyValue("--grid").trim();
  const axis = name => ({ [`${name}.gridcolor`]: grid, [`${name}.zerolinecolor`]: ink, [`${name}.linecolor`]: grid });
  return {
    "font.color": ink, "font.family": getComputedStyle(document.body).fontFamily, "font.size": 12,
    "hoverlabel.bgcolor": css.getPropertyValue("--ground").trim(), "hoverlabel.bordercolor": grid,
    "hoverlabel.font.color": css.getPropertyValue("--ink").trim(), ...axis("xaxis"), ...axis("yaxis"),
  };
}

function off(plot) {
  const section = plot.closest(".block");
  if (!hidden.has(section)) hidden.set(section, new Set());
  return hidden.get(section);
}

async function draw(plot) {
  if (plot.dataset.drawn || !plot.offsetParent) return;
  plot.dataset.drawn = "yes";
  const { data, layout } = figures[plot.id];
  for (const trace of data) trace.visible = !off(plot).has(trace.legendgroup);
  if (matchMedia("(pointer: fine)").matches) layout.dragmode = "zoom";
  await Plotly.newPlot(plot, data, layout, { displayModeBar: false, responsive: true });
  await Plotly.relayout(plot, theme());
}

async function drawAll() {
  for (const plot of plots) {
    await draw(plot);
    await new Promise(resume => setTimeout(resume));
  }
  document.documentElement.dataset.ready = "yes";
}

function choose(tab) {
  for (const other of tab.parentElement.children) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  for (const plot of document.getElementById(tab.getAttribute("aria-controls")).querySelectorAll(".plot")) {
    if (plot.dataset.drawn) Plotly.Plots.resize(plot); else draw(plot);
  }
}

function toggle(entry) {
  const section = entry.closest(".block"), label = entry.dataset.label, set = off(entry);
  if (!set.delete(label)) set.add(label);
  for (const other of section.querySelectorAll(".legend button")) {
    if (other.dataset.label === label) other.setAttribute("aria-pressed", !set.has(label));
  }
  for (const plot of section.querySelectorAll(".plot[data-drawn]")) {
    const traces = plot.data.flatMap((trace, i) => trace.legendgroup === label ? [i] : []);
    if (traces.length) Plotly.restyle(plot, { visible: !set.has(label) }, traces);
  }
}

document.addEventListener("click", event => {
  const tab = event.target.closest('[role="tab"]'), entry = event.target.closest(".legend button");
  if (tab) choose(tab);
  if (entry) toggle(entry);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of plots) if (plot.dataset.drawn) Plotly.relayout(plot, theme());
});
drawAll();
