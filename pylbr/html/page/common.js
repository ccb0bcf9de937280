// What all views share: elements, numbers, names, and the state of the page.
"use strict";

const profile = JSON.parse(document.getElementById("profile").textContent);
const text = (number) => profile.texts[number];

/** An element; text becomes text, never markup. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, part] of Object.entries(value)) made.style.setProperty(key, part);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const svg = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

const NOT_MEASURED = "n/a";
const whole = (value) => value === null ? NOT_MEASURED : Math.round(value).toLocaleString("en");
const percent = (value) => value === null ? NOT_MEASURED : `${(100 * value).toFixed(2)} %`;
const decimal = (value) => value === null ? NOT_MEASURED : value.toFixed(1);
const hexadecimal = (value) => value.toString(16);

/** Counts in few characters, for labels. */
function short(value) {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${(value / size).toPrecision(3)}${letter}`;
  }
  return `${value}`;
}

const baseName = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Okabe and Ito's colours, which readers with any colour vision tell apart, on light and dark. */
const PALETTE = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999"];
/** The same, light enough for dark text on them. */
const TINTS = ["#8fcbf0", "#f0c15a", "#6cc7a9", "#e0aac8", "#f5ee8e", "#7fb3d6", "#ee9c66", "#c4c4c4"];

/** A line of the legend: a sample and what it stands for. */
function swatch(colour, label) {
  return element("span", {}, element("span", { class: "swatch", style: { background: colour } }), label);
}

function lineSample(kind, label) {
  return element("span", {}, svg("svg", { width: 30, height: 10 },
    svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, class: kind, "stroke-width": 3 })), label);
}
