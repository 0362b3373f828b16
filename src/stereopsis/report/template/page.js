"use strict";
// Draws the 3D figures when they come into sight; colours follow the light or dark scheme.
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function traces(figure) {
    const packed = new Int16Array(bytes(figure.points).buffer);
    const rgb = bytes(figure.colours);
    const axes = [0, 1, 2].map(() => new Float32Array(figure.count));
    const colours = new Array(figure.count);
    for (let i = 0; i < figure.count; i++) {
      for (let axis = 0; axis < 3; axis++) axes[axis][i] = packed[3 * i + axis] / 1000 + figure.origin[axis];
      colours[i] = `rgb(${rgb[3 * i]},${rgb[3 * i + 1]},${rgb[3 * i + 2]})`;
    }
    const line = (name, parts, colour, width) => ({
      type: "scatter3d", mode: "lines", name, x: parts[0], y: parts[1], z: parts[2],
      line: { color: colour, width }, hoverinfo: "name",
    });
    const cameras = figure.cameras;
    return [
      {
        type: "scatter3d", mode: "markers", name: "room", x: axes[0], y: axes[1], z: axes[2], hoverinfo: "skip",
        marker: { size: 2.6, color: colours, opacity: 1 }, showlegend: false,
      },
      { ...line("cameras", cameras.line, style("--soft"), 3), legendgroup: "cameras", hoverinfo: "skip" },
      {
        type: "scatter3d", mode: "markers", name: "cameras", legendgroup: "cameras", showlegend: false,
        x: cameras.centres.map((c) => c[0]), y: cameras.centres.map((c) => c[1]), z: cameras.centres.map((c) => c[2]),
        text: cameras.names, hoverinfo: "text", marker: { size: 3, color: style("--soft") },
      },
      ...figure.boxes.map((box) => line(box.name, box.line, box.colour, box.width)),
    ];
  }

  function layout() {
    const axis = {
      title: { text: "" }, showbackground: false, showgrid: false, zeroline: false, showticklabels: false, showspikes: false,
    };
    return {
      margin: { l: 0, r: 0, t: 0, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", color: style("--soft"), size: 12 },
      legend: { orientation: "h", x: 0, y: 0, yanchor: "top", bgcolor: "rgba(0,0,0,0)" },
      scene: {
        xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data", dragmode: "orbit",
        camera: { eye: { x: 0.55, y: -1.05, z: 1.6 }, center: { x: 0, y: 0, z: -0.1 } },
      },
    };
  }

  function show(place) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    const options = { displaylogo: false, responsive: true, scrollZoom: false, displayModeBar: false };
    Plotly.newPlot(place, traces(figure), layout(), options).then(() => {
      place.parentElement.querySelector(".wait").remove();
    });
  }

  const places = [...document.querySelectorAll("[data-figure]")];
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        watch.unobserve(entry.target);
        show(entry.target);
      }
    }
  }, { rootMargin: "400px" });
  places.forEach((place) => watch.observe(place));
  dark.addEventListener("change", () => {
    for (const place of places) if (place.data) Plotly.relayout(place, { "font.color": style("--soft") });
  });
  for (const button of document.querySelectorAll(".hold")) {
    button.addEventListener("click", () => {
      const live = button.parentElement.classList.toggle("live");
      button.textContent = live ? "let the page scroll" : "turn with a finger";
    });
  }
})();
