// What the page of `pylbr report --html` takes from libraries; everything else is shaken off.
export { graphlib, layout } from "@dagrejs/dagre";
export { max, sum } from "d3-array";
export { axisBottom, axisLeft, axisTop } from "d3-axis";
export { default as flamegraph } from "d3-flame-graph";
export { scaleBand, scaleLinear, scaleLog, scaleSqrt } from "d3-scale";
export { select, selectAll } from "d3-selection";
export { curveBasis, line } from "d3-shape";
export { zoom, zoomIdentity } from "d3-zoom";
