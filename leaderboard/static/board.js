// What the pages gain with JavaScript: filters kept in the address, sorting, tooltips, copying, comparing.
// Everything is text: nothing from the data is ever parsed as markup.
"use strict";

const node = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

function scrolling(table, label) {
  const region = node("div", "", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" });
  region.append(table);
  return region;
}

function keepInAddress(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) value ? query.set(name, value) : query.delete(name);
  const text = query.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : "") + location.hash);
}

function makeFilter(form) {
  const table = document.getElementById(form.dataset.filter);
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
  const fields = [...form.elements].filter((field) => field.name);
  const query = new URLSearchParams(location.search);
  for (const field of fields) if (query.has(field.name)) field.value = query.get(field.name);
  const apply = () => {
    const values = Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]));
    const words = (values.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, text } of rows) {
      const chosen = fields.every((f) => f.name === "q" || !f.value || row.dataset[f.name] === f.value);
      row.hidden = !(chosen && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    form.querySelector("output").textContent = shown === rows.length ? `${shown} shown` : `${shown} of ${rows.length} shown`;
    keepInAddress(values);
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, index) => {
    const cell = row.cells[index];
    const text = (cell.dataset.sort || cell.textContent).trim();
    const number = parseFloat(text.replace(/,/g, ""));
    return /^[-+]?[\d.,]+(e-?\d+)?[×%]?$/.test(text) && !Number.isNaN(number) ? number : text.toLowerCase();
  };
  heads.forEach((head, index) => {
    if (head.classList.contains("nosort")) return;
    const button = node("button", "", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !head.classList.contains("n"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, index), row]);
      const empty = (value) => value === "";
      rows.sort(([a], [b]) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

function makeTips() {
  const tip = node("div", "", { id: "tip", "aria-hidden": "true" });
  tip.hidden = true;
  document.body.append(tip);
  for (const dot of document.querySelectorAll(".chart .dot")) {
    const holder = dot.closest("a") || dot;
    const title = holder.querySelector("title");
    if (!title) continue;
    const text = title.textContent;
    if (holder !== dot) { // two tooltips would cover each other
      title.remove();
      holder.setAttribute("aria-label", text);
    }
    const show = () => {
      const box = dot.getBoundingClientRect();
      tip.textContent = text;
      tip.hidden = false;
      const left = Math.min(box.left + 10, document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(4, left) + scrollX}px`;
      tip.style.top = `${box.top + scrollY - tip.offsetHeight - 8}px`;
    };
    const hide = () => { tip.hidden = true; };
    for (const name of ["mouseenter", "focus"]) holder.addEventListener(name, show);
    for (const name of ["mouseleave", "blur"]) holder.addEventListener(name, hide);
  }
}

function makeCopies() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.setAttribute("aria-label", `Copy: ${button.previousElementSibling.textContent}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

const FACTS = [
  ["date", "Date"], ["score", "Result"], ["speedup", "Over the first"], ["steps", "Steps"], ["loss_mean", "Mean loss"],
  ["loss_std", "Its spread"], ["runs", "Runs"], ["p_value", "One-sided p"], ["code_lines", "Lines of code"],
  ["machine", "Machine"], ["torch", "torch"],
];

function standing(board, number) {
  return board.methods.filter(([, from, until]) => from <= number && (until === null || number < until)).map(([name]) => name);
}

function found(boards, name) {
  const board = boards[name.slice(0, name.lastIndexOf("/"))];
  return board && { board, row: board.records.find((row) => row.record === name) };
}

function compared(boards, a, b) {
  const first = found(boards, a), second = found(boards, b);
  if (!first?.row || !second?.row) return node("p", "Choose two records.");
  const made = document.createDocumentFragment();
  const table = node("table");
  const head = table.createTHead().insertRow();
  head.append(node("th", "", { scope: "col" }));
  for (const { board, row } of [first, second]) {
    const cell = node("th", "", { scope: "col" });
    cell.append(node("a", row.record, { href: `${board.folder}/${row.page}` }));
    head.append(cell);
  }
  const body = table.createTBody();
  const line = (label, values) => {
    const row = body.insertRow();
    row.append(node("th", label, { scope: "row" }));
    for (const value of values) row.append(node("td", value));
  };
  line("Title", [first.row.title, second.row.title]);
  line("By", [first.row.authors.join(", "), second.row.authors.join(", ")]);
  for (const [name, label] of FACTS) {
    const values = [first, second].map(({ board, row }) => {
      const value = row[name];
      if (value === null) return "";
      if (name === "score") return `${(value / board.divide).toLocaleString("en", { maximumFractionDigits: 3 })} ${board.unit}`;
      if (name === "speedup") return `${value.toFixed(2)}×`;
      if (name === "p_value" && value < 0.001) return value.toExponential(0);
      const digits = name === "p_value" || name === "loss_std" ? 2 : 6;
      return typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: digits }) : value;
    });
    if (values[0] || values[1]) line(label, values);
  }
  made.append(scrolling(table, "The two records"));
  const methods = [first, second].map(({ board, row }) => standing(board, row.number));
  for (const [which, other, label, kind] of [[0, 1, a, "dropped"], [1, 0, b, "added"]]) {
    const only = methods[which].filter((name) => !methods[other].includes(name));
    made.append(node("h2", `Methods only in ${label}: ${only.length}`));
    const list = node("p", "", { class: "changes" });
    for (const name of only) list.append(node("span", name, { class: kind }), " ");
    made.append(list);
  }
  return made;
}

const MOST_CELLS = 16e6; // beyond, what differs is shown as taken out and put in whole

// The edit script of two lists of lines as [mark, line], by their longest common subsequence.
function differingLines(before, after) {
  let head = 0, tail = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head++;
  while (tail < before.length - head && tail < after.length - head && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const a = before.slice(head, before.length - tail), b = after.slice(head, after.length - tail);
  if (a.length * b.length > MOST_CELLS) {
    const whole = [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
    return [...before.slice(0, head).map((line) => [" ", line]), ...whole, ...before.slice(before.length - tail).map((line) => [" ", line])];
  }
  const width = b.length + 1, common = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i * width + j] = a[i] === b[j] ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  const script = before.slice(0, head).map((line) => [" ", line]);
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { script.push([" ", a[i++]]); j++; }
    else if (j === b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) script.push(["-", a[i++]]);
    else script.push(["+", b[j++]]);
  }
  return script.concat(before.slice(before.length - tail).map((line) => [" ", line]));
}

const CONTEXT = 3;

function fileDifference(name, before, after) {
  const script = differingLines(before.split("\n"), after.split("\n"));
  const near = (at) => script.slice(Math.max(0, at - CONTEXT), at + CONTEXT + 1).some(([mark]) => mark !== " ");
  const shown = node("pre", "", { class: "diff", tabindex: "0", role: "region", "aria-label": `Difference in ${name}` });
  const code = node("code", "");
  let skipped = false;
  script.forEach(([mark, line], at) => {
    if (!near(at)) { skipped = true; return; }
    if (skipped) code.append(node("span", "…\n", { class: "gu" }));
    skipped = false;
    code.append(mark === " " ? ` ${line}\n` : node("span", `${mark}${line}\n`, { class: mark === "+" ? "gi" : "gd" }));
  });
  shown.append(code);
  return shown;
}

// The sources of own records lie in a script each, fetched when they are compared: file:// allows nothing else.
function sourceOf(row) {
  window.SOURCES ||= {};
  if (!row.source || window.SOURCES[row.record]) return Promise.resolve(window.SOURCES[row.record]);
  return new Promise((done) => {
    const script = node("script", "", { src: `data/sources/${row.source}` });
    script.addEventListener("load", () => done(window.SOURCES[row.record]));
    script.addEventListener("error", () => done(undefined));
    document.head.append(script);
  });
}

async function comparedSources(first, second) {
  const [a, b] = await Promise.all([sourceOf(first), sourceOf(second)]);
  const made = document.createDocumentFragment();
  if (!a || !b) return made;
  const hparams = Object.keys({ ...a.hparams, ...b.hparams }).filter((name) => a.hparams[name] !== b.hparams[name]);
  made.append(node("h2", `Hyperparameters that differ: ${hparams.length}`));
  if (hparams.length) {
    const table = node("table");
    const head = table.createTHead().insertRow();
    for (const title of ["Hyperparameter", first.record, second.record]) head.append(node("th", title, { scope: "col" }));
    const body = table.createTBody();
    for (const name of hparams) {
      const row = body.insertRow();
      row.append(node("th", name, { scope: "row" }));
      for (const values of [a.hparams, b.hparams]) row.append(node("td", name in values ? String(values[name]) : "none"));
    }
    made.append(scrolling(table, "Hyperparameters that differ"));
  }
  const files = Object.keys({ ...a.files, ...b.files }).filter((name) => a.files[name] !== b.files[name]);
  made.append(node("h2", `Files that differ: ${files.length}`));
  for (const name of files) {
    made.append(node("h3", name), fileDifference(name, a.files[name] || "", b.files[name] || ""));
  }
  return made;
}

function makeCompare(form) {
  const boards = window.BOARDS || {};
  for (const select of form.querySelectorAll("select")) {
    for (const [name, board] of Object.entries(boards)) {
      if (!board.records.length) continue;
      const group = node("optgroup", "", { label: name });
      for (const row of board.records) group.append(node("option", `${row.record}: ${row.title}`, { value: row.record }));
      select.append(group);
    }
  }
  const query = new URLSearchParams(location.search);
  const { a, b } = form.elements;
  const last = b.options[b.options.length - 1]?.value || "";
  a.value = query.get("a") || a.options[0]?.value || "";
  b.value = query.get("b") || last;
  const show = () => {
    const place = document.getElementById("compared"), names = [a.value, b.value];
    place.replaceChildren(compared(boards, ...names));
    document.querySelector(".command code").textContent = `speedrun board diff ${names[0]} ${names[1]}`;
    keepInAddress({ a: a.value, b: b.value });
    const rows = names.map((name) => found(boards, name)?.row);
    if (!rows[0]?.source || !rows[1]?.source) return;
    comparedSources(...rows).then((sources) => {
      if (a.value === names[0] && b.value === names[1]) place.append(sources);
    });
  };
  form.addEventListener("input", show);
  form.hidden = false;
  show();
}

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("form[data-filter]").forEach(makeFilter);
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  makeTips();
  makeCopies();
  const form = document.getElementById("compare");
  if (form) makeCompare(form);
});
