"use strict";
// Looks at a plan's page as a person would, and leaves what it found in an element of its own.
const found = { problems: window.problems, plots: [] };
for (const figure of document.querySelectorAll(".plot")) {
  const say = (words) => found.problems.push(`${figure.id}: ${words}`);
  const stage = figure.querySelector(".stage");
  const tip = figure.querySelector(".tip");
  const svg = [...stage.querySelectorAll("svg")].find((svg) => getComputedStyle(svg).display !== "none");
  const box = (element) => element.getBoundingClientRect();
  const inside = (inner, outer) =>
    inner.left >= outer.left - 3 && inner.right <= outer.right + 3 && inner.top >= outer.top - 3 && inner.bottom <= outer.bottom + 3;
  const curves = [...svg.querySelectorAll(".curve")];
  const area = svg.querySelector(".area");
  if (box(svg).width < 200 || box(area).height < 100) say("no room");
  if (document.documentElement.scrollWidth > window.innerWidth) say("the page is wider than the window");
  for (const words of svg.querySelectorAll("text")) {
    if (!inside(box(words), box(svg))) say(`${words.textContent} is cut off`);
    if (/NaN|undefined|Infinity/.test(words.textContent)) say(words.textContent);
  }
  const ticks = [...svg.querySelectorAll(".tick.middle")].map(box);
  if (ticks.some((tick, at) => at > 0 && tick.left < ticks[at - 1].right)) say("numbers of the axis lie on each other");
  for (const curve of curves) {
    const name = curve.dataset.name;
    const shapes = [...curve.querySelectorAll(".line, .bar")];
    if (shapes.length === 0) say(`${name} has no shape`);
    for (const shape of shapes) {
      const [rect, style] = [box(shape), getComputedStyle(shape)];
      if (!(rect.width > 0) || !inside(rect, box(area))) say(`${name} is not drawn in its box`);
      if (style.stroke === "none" && style.fill === "none") say(`${name} has no colour`);
      if (shape.matches(".line") && !(shape.getTotalLength() > 50)) say(`${name} has no length`);
    }
    for (const dot of curve.querySelectorAll(".dot")) {
      if (!inside(box(dot), { ...grown(box(area)) })) say(`${name} has a point outside of the box`);
    }
  }
  // The pointer in the middle shows the values there, of all curves that have one.
  const at = { clientX: (box(area).left + box(area).right) / 2, clientY: box(area).top + 5, bubbles: true };
  const move = () => stage.dispatchEvent(new PointerEvent("pointermove", at));
  move();
  const rows = () => (tip.hidden ? 0 : tip.querySelectorAll("div").length);
  const all = rows();
  if (all !== curves.length) say(`${all} values are shown of ${curves.length}`);
  if (/NaN|undefined/.test(tip.textContent)) say(tip.textContent);
  if (!inside(box(tip), { ...grown(box(figure)) })) say("the values are cut off");
  if (!svg.querySelector(".hair")) say("no line at the pointer");
  // A curve that is put away is gone, and comes back.
  const key = figure.querySelector("[data-key='0']");
  if (key) {
    key.click();
    if (getComputedStyle(curves[0]).display !== "none" || key.getAttribute("aria-pressed") !== "false") say("a curve stays");
    move();
    if (rows() !== all - 1) say("a curve that was put away still has a value");
    key.click();
    if (getComputedStyle(curves[0]).display === "none") say("a curve does not come back");
  } else if (curves.length > 1) {
    say("no legend");
  }
  stage.dispatchEvent(new PointerEvent("pointerleave"));
  if (!tip.hidden) say("the values stay");
  stage.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  const first = tip.textContent;
  stage.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  if (rows() === 0 || tip.textContent === first) say("keys show nothing");
  found.plots.push({ id: figure.id, curves: curves.map((curve) => curve.dataset.name), values: all });
}
function grown(rect) {
  return { left: rect.left - 6, right: rect.right + 6, top: rect.top - 6, bottom: rect.bottom + 6 };
}
found.data = JSON.parse(document.getElementById("data").textContent).points.length;
found.rows = document.querySelectorAll("tbody tr").length;
found.dark = matchMedia("(prefers-color-scheme: dark)").matches;
found.width = window.innerWidth;
const result = document.createElement("pre");
result.id = "found";
result.textContent = JSON.stringify(found);
document.body.append(result);
