"use strict";
// The plots are drawn; this shows the values under the pointer and lets curves be put away.
for (const figure of document.querySelectorAll(".plot")) {
  const stage = figure.querySelector(".stage");
  const tip = figure.querySelector(".tip");
  const shown = () => [...stage.querySelectorAll("svg")].find((svg) => getComputedStyle(svg).display !== "none");
  const dots = (svg) => [...svg.querySelectorAll(".curve:not(.off) .dot")];
  const number = (element, name) => Number(element.getAttribute(name));
  let place = null; // which of the places along x is shown

  const places = (svg) => [...new Set(dots(svg).map((dot) => number(dot, "cx")))].sort((one, other) => one - other);

  const clear = () => {
    tip.hidden = true;
    place = null;
    stage.querySelectorAll(".hair").forEach((hair) => hair.remove());
    stage.querySelectorAll(".dot.on").forEach((dot) => dot.classList.remove("on"));
  };

  const line = (name, value, group) => {
    const row = document.createElement("div");
    const left = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.className = "swatch " + [...group.classList].find((word) => /^c\d$/.test(word));
    left.append(swatch, name);
    row.append(left, value);
    return row;
  };

  const show = (svg, x) => {
    const at = dots(svg).filter((dot) => number(dot, "cx") === x);
    clear();
    if (at.length === 0) return;
    place = x;
    const area = svg.querySelector(".area");
    const hair = document.createElementNS(svg.namespaceURI, "line");
    const [top, height] = [number(area, "y"), number(area, "height")];
    for (const [name, value] of [["class", "hair"], ["x1", x], ["x2", x], ["y1", top], ["y2", top + height]]) {
      hair.setAttribute(name, value);
    }
    area.after(hair);
    at.sort((one, other) => number(one, "cy") - number(other, "cy"));
    const title = document.createElement("b");
    title.textContent = at[0].dataset.x;
    tip.replaceChildren(title);
    for (const dot of at) {
      dot.classList.add("on");
      const group = dot.closest(".curve");
      tip.append(line(group.dataset.name, dot.dataset.y, group));
    }
    tip.hidden = false;
    // Beside the line, on the side with more room.
    const scale = svg.clientWidth / svg.viewBox.baseVal.width;
    const left = x * scale;
    const over = left > svg.clientWidth / 2;
    tip.style.left = Math.max(0, over ? left - tip.offsetWidth - 14 : left + 14) + "px";
    tip.style.top = (top + 8) * scale + "px";
  };

  stage.addEventListener("pointermove", (event) => {
    const svg = shown();
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const all = places(svg);
    if (all.length === 0) return clear();
    show(svg, all.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best)));
  });
  stage.addEventListener("pointerleave", clear);
  stage.addEventListener("blur", clear);
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") clear();
    if (!step) return;
    event.preventDefault();
    const svg = shown();
    const all = places(svg);
    const next = place === null ? (step > 0 ? 0 : all.length - 1) : all.indexOf(place) + step;
    if (next >= 0 && next < all.length) show(svg, all[next]);
  });

  for (const key of figure.querySelectorAll("[data-key]")) {
    key.addEventListener("click", () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      const of = key.dataset.key;
      stage.querySelectorAll(`[data-curve="${of}"], [data-of="${of}"]`).forEach((part) => part.classList.toggle("off", !on));
      clear();
    });
  }
}

document.getElementById("save").addEventListener("click", () => {
  const data = document.getElementById("data").textContent;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data], { type: "application/json" }));
  link.download = "kvtier-plan.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
