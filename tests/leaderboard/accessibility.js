// What can be told of a page's accessibility by looking at it as rendered: WCAG 2.2 levels A and AA, where a rule is
// mechanical. The value is a list of complaints, each with the criterion. Names are left to the browser's own tree.
(() => {
  const complaints = [];
  const complain = (criterion, element, what) => complaints.push(`${criterion} ${element ? describe(element) : ""}: ${what}`);
  const describe = (element) => `<${element.tagName.toLowerCase()}> "${(element.textContent || "").trim().slice(0, 40)}"`;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const visible = (element) => element.checkVisibility({ checkVisibilityCSS: true }) && element.getClientRects().length > 0;

  // 1.4.3, 1.4.11: contrast of text, and of the marks in charts
  const parse = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => {
    const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !visible(element) || element.closest("title, script")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const colour = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const found = contrast(colour, ground(element));
    if (found < needed) complain("1.4.3", element, `contrast ${found.toFixed(2)}`);
  }
  for (const mark of all(".chart .line, .chart .dot, .chart path.target, .chart path.mean, .life rect")) {
    if (!visible(mark)) continue;
    const style = getComputedStyle(mark);
    const drawn = [style.fill, style.stroke].map(parse).filter((colour) => colour.length >= 3);
    const found = Math.max(...drawn.map((colour) => contrast(colour, ground(mark))));
    if (found < 3) complain("1.4.11", mark, `${mark.getAttribute("class")}: contrast ${found.toFixed(2)}`);
  }

  // 1.3.1, 2.4.6: headings in order, tables with headers
  const levels = all("h1, h2, h3, h4").filter(visible).map((heading) => Number(heading.tagName[1]));
  if (levels[0] !== 1 || levels.filter((level) => level === 1).length !== 1) complain("1.3.1", null, "one h1, first");
  levels.forEach((level, at) => { if (at && level > levels[at - 1] + 1) complain("1.3.1", null, `h${levels[at - 1]} then h${level}`); });
  for (const table of all("table").filter(visible)) {
    if (!table.querySelector("th")) complain("1.3.1", table, "a table without headers");
    for (const head of table.querySelectorAll("th")) if (!head.scope) complain("1.3.1", head, "a header without scope");
  }

  // 1.1.1, 3.1.1, 2.4.1, 2.4.2, 4.1.2: pictures, language, landmarks, title, references
  for (const picture of all("img")) if (!picture.alt) complain("1.1.1", picture, "no alt");
  for (const picture of all("svg").filter(visible)) {
    if (!picture.getAttribute("aria-label") || !picture.getAttribute("role")) complain("1.1.1", picture, "a chart without a name");
  }
  if (!document.documentElement.lang) complain("3.1.1", null, "no language");
  if (!document.title.trim()) complain("2.4.2", null, "no title");
  for (const [selector, count] of [["main", 1], ["header", 1], ["footer", 1], ["nav[aria-label='Site']", 1]]) {
    if (all(selector).length !== count) complain("1.3.1", null, `${selector} ${all(selector).length} times`);
  }
  if (document.querySelector("a").hash !== "#main") complain("2.4.1", null, "the first link does not skip to the content");
  const ids = all("[id]").map((element) => element.id);
  if (new Set(ids).size !== ids.length) complain("4.1.2", null, "an id twice");
  for (const name of ["aria-labelledby", "aria-describedby", "aria-controls", "for"]) {
    for (const element of all(`[${name}]`)) {
      if (!ids.includes(element.getAttribute(name))) complain("4.1.2", element, `${name} leads nowhere`);
    }
  }

  // 2.1.1: what scrolls can be reached by keyboard; 2.5.8: what is pressed is large enough, links in text apart
  for (const element of all("body *").filter(visible)) {
    const style = getComputedStyle(element);
    const scrolls = /auto|scroll/.test(style.overflowX + style.overflowY) && (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1);
    if (scrolls && element.tabIndex < 0 && !element.matches("select, input")) complain("2.1.1", element, "scrolls, but not by keyboard");
  }
  for (const element of all("button, select, input, summary, header a").filter(visible)) {
    const box = element.getBoundingClientRect();
    if (box.height < 23.5) complain("2.5.8", element, `${box.height.toFixed(0)} pixels high`);
  }
  return complaints;
})()
