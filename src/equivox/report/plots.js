"use strict";
// Draws every `.plot` from the JSON behind it, in the page's colours: light, dark or on paper.
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(stream).text();
  document.head.append(library);

  const PAPER_WIDTH = 620;
  const variable = /^var\((--\w+)\)$/;
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
  const printed = rules.find((rule) => rule.media && rule.media.mediaText === "print");
  const colours = {
    screen: (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim(),
    paper: (name) => printed.cssRules[0].style.getPropertyValue(name).trim(),
  };

  function specification(plot, medium) {
    const coloured = (x) => (variable.test(x) ? colours[medium](variable.exec(x)[1]) : x);
    return JSON.parse(plot.nextElementSibling.textContent, (key, x) => {
      if (!/color$/.test(key)) return x;
      return Array.isArray(x) ? x.map(coloured) : coloured(x);
    });
  }

  function draw(plot, medium) {
    if (!plot.offsetParent && medium === "screen") return; // in a closed part: drawn when it opens
    const { data, layout } = specification(plot, medium);
    layout.width = medium === "paper" ? PAPER_WIDTH : plot.clientWidth;
    plot.dataset.width = layout.width;
    Plotly.react(plot, data, layout, { displayModeBar: false });
  }

  const plots = [...document.querySelectorAll(".plot")];
  const drawAll = (medium) => plots.forEach((plot) => draw(plot, medium));
  const resized = new ResizeObserver((entries) => {
    if (matchMedia("print").matches) return;
    for (const { target } of entries) {
      if (Number(target.dataset.width) !== target.clientWidth) draw(target, "screen");
    }
  });
  plots.forEach((plot) => resized.observe(plot));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll("screen"));
  addEventListener("beforeprint", () => drawAll("paper"));
  addEventListener("afterprint", () => drawAll("screen"));
  drawAll("screen");
})();
