// Asks /status.json every two seconds and shows the answer. Nothing is loaded from anywhere else.
"use strict";

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const LEVELS = ["1 (finest)", "2", "3", "4", "5", "6", "7 (widest)", "8 (past the last)", "9 (suppressed)"];

// Without a name and password that may stand in the page's own address: a browser sends what it was told by itself, and refuses them here.
const beside = (path) => new URL(path, location.origin + location.pathname).href;
const at = (id) => document.getElementById(id);
const number = (value) => Number(value).toLocaleString("en-GB");
const clock = (iso) => `${iso.slice(11, 19)} UTC`;
const dark = matchMedia("(prefers-color-scheme: dark)");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

let charts = [];
let shown = null;
let lastAnswer = null;

function say(id, text) {
  // Only what changed is written, so that a screen reader is told of changes alone.
  if (at(id).textContent !== text) at(id).textContent = text;
}

function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function size(bytes) {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  return `${Number((bytes / 1024 ** power).toPrecision(4))} ${["bytes", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function replace(id, children) {
  at(id).replaceChildren(...children);
}

function show(status) {
  shown = status;
  at("banner").dataset.state = status.state;
  const cohort = status.cohort ? ` · ${status.cohort}` : "";
  document.title = `${status.headline}${cohort} · ECG anonymizer`;
  say("cohort", cohort);
  say("headline", status.headline);
  showFindings(status);
  showFigures(status);
  replace("outputs", status.outputs.map(output));
  say("spool", `The spool holds ${size(status.spool.bytes)}; there is room for ${size(status.spool.limit_bytes)}.`);
  say("workers", status.workers === null ? "" : `Dask workers that share the work: ${number(status.workers)}.`);
  at("levels-section").hidden = !status.levels;
  for (const row of document.querySelectorAll(".of-groups")) row.hidden = !status.groups;
  say("groups-title", status.groups ? "Groups" : "Verification");
  if (status.groups) {
    showLevels(status.levels);
    say("group-mean", `${number(status.groups.mean_rows)} rows`);
    say("group-smallest", status.groups.smallest ? `${number(status.groups.smallest)} rows` : "–");
    say("group-number", number(status.groups.number));
  }
  say("violations", number(status.verification_failures));
  say("version", status.version);
  say("started", status.started.replace("T", " ").replace("Z", " UTC"));
  showMinutes(minutes(status.moments));
}

function showFindings(status) {
  const findings = [...status.reasons, ...status.notices];
  say("sentence", findings.length ? "" : status.sentence);
  const list = at("findings");
  if (list.dataset.shown === JSON.stringify(findings)) return;
  list.dataset.shown = JSON.stringify(findings);
  list.replaceChildren(...findings.map(finding));
}

function finding(one) {
  const item = element("li", "", `${one.text} `);
  const link = element("a", "", "What to do");
  link.href = `help#${one.code}`;
  link.setAttribute("aria-label", `What to do: ${one.code.replaceAll("_", " ")}`);
  item.append(link);
  return item;
}

function showFigures(status) {
  const all = status.windows_in_all;
  const done = Object.values(status.windows).reduce((sum, one) => sum + one, 0);
  say("lag-name", status.streaming ? "Behind" : "Done");
  say("lag", status.streaming ? duration(status.lag_seconds) : all === null ? "–" : `${number(done)} of ${number(all)} windows`);
  say("up-to", status.up_to ? `${status.up_to.slice(0, 10)} ${clock(status.up_to).replace(" ", "\u00a0")}` : "–");
  say("windows-released", number(status.windows.released));
  say("windows-withheld", number(status.windows.withheld));
  say("rows-released", number(status.rows.released));
  const noise = status.rows.noisy ? ` (${number(status.rows.noisy)} as noise)` : "";
  say("rows-withheld", number(status.rows.withheld) + noise);
  say("rows-invalid", number(status.rows.invalid));
  say("rows-late", number(status.rows.late));
  say("rows-unaccounted", number(status.rows.unaccounted));
}

function output(one) {
  const item = element("li");
  item.dataset.state = one.trouble ? "trouble" : "ok";
  const says = one.trouble ? (one.has_ended ? "Not written to any more" : `Takes nothing since ${clock(one.trouble.since)}`) : "Takes data";
  const head = element("div", "", "");
  head.append(element("span", "name", one.name), " · ", element("span", "says", says));
  const counts = [
    `${number(one.taken)} rows taken`,
    `${number(one.pending)} waiting`,
    `${number(one.set_aside)} set aside`,
    `at chunk ${number(one.position)}`,
    `${number(one.retries)} retries`,
  ];
  item.append(head, element("div", "counts", counts.join(" · ")));
  if (one.last_error) item.append(element("div", "error", `Last error, ${clock(one.last_error.since)}: ${one.last_error.reason}`));
  return item;
}

function showLevels(levels) {
  const all = levels.rows.reduce((sum, rows) => sum + rows, 0);
  say(
    "levels-note",
    all
      ? `Released rows by the level of their group, over ${number(levels.windows)} windows.`
      : `Shown once ${levels.fewest_windows} windows were released: of fewer it would tell too much.`,
  );
  replace("levels", all ? levels.rows.map((rows, index) => level(LEVELS[index], rows / all)) : []);
}

function level(name, share) {
  const item = element("li");
  const bar = element("span", "bar");
  const filled = element("span");
  filled.style.width = `${100 * share}%`;
  if (share) bar.append(filled);
  bar.setAttribute("aria-hidden", "true");
  item.append(element("span", "", name), bar, element("span", "share", `${(100 * share).toFixed(1)} %`));
  return item;
}

// The last hour

function minutes(moments) {
  const columns = { start: [], released: [], withheld: [], empty: [], late: [], lag: [] };
  moments.start.forEach((start, index) => {
    const minute = Math.floor(start / 60) * 60;
    if (columns.start.at(-1) !== minute) {
      columns.start.push(minute);
      for (const name of ["released", "withheld", "empty", "late", "lag"]) columns[name].push(0);
    }
    const last = columns.start.length - 1;
    columns.released[last] += moments.released[index];
    columns.withheld[last] += moments.withheld[index];
    columns.empty[last] += moments.empty[index];
    columns.late[last] += moments.rows_late[index];
    columns.lag[last] = Math.max(columns.lag[last], moments.lag_seconds[index]);
  });
  // The minute that is not over yet would look like the beginning of an outage.
  if (columns.start.length > 1) for (const column of Object.values(columns)) column.pop();
  return columns;
}

function showMinutes(columns) {
  if (!charts.length) makeCharts();
  charts[0].setData([columns.start, columns.released, columns.withheld, columns.empty]);
  charts[1].setData([columns.start, columns.lag]);
  charts[2].setData([columns.start, columns.late]);
  if (at("table").hidden) return;
  const rows = columns.start.map((start, index) => {
    const cells = [hourAndMinute(start), columns.released[index], columns.withheld[index]];
    cells.push(columns.empty[index], columns.late[index], duration(columns.lag[index]));
    const row = element("tr");
    row.append(...cells.map((cell) => element("td", "", typeof cell === "number" ? number(cell) : cell)));
    return row;
  });
  replace("table-rows", rows.reverse());
}

function hourAndMinute(seconds) {
  return new Date(seconds * 1000).toISOString().slice(11, 16);
}

// Next to a chart's legend, while nothing is pointed at.
function pointedAt(_, value) {
  return value == null ? " " : number(value);
}

function chart(id, series) {
  const axis = { stroke: color("soft"), grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line"), width: 1 } };
  const drawn = series.map(([label, name]) => ({ label, stroke: color(name), fill: `${color(name)}22`, width: 2, points: { size: 5 }, value: pointedAt }));
  return new uPlot(
    {
      width: at(id).clientWidth,
      height: 150,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      // An hour, ending now: a run that has just begun looks like one.
      scales: { x: { range: () => [Date.now() / 1000 - 3600, Date.now() / 1000] }, y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
      axes: [{ ...axis, values: (_, times) => times.map(hourAndMinute) }, { ...axis, size: 55 }],
      series: [{ label: "UTC", value: (_, time) => (time == null ? " " : hourAndMinute(time)) }, ...drawn],
      cursor: { y: false },
    },
    [[], ...series.map(() => [])],
    at(id),
  );
}

function makeCharts() {
  for (const one of charts) one.destroy();
  charts = [
    chart("windows-chart", [["Released", "released"], ["Withheld", "withheld"], ["Empty", "empty"]]),
    chart("lag-chart", [["Behind, s", "released"]]),
    chart("late-chart", [["Late rows", "withheld"]]),
  ];
}

addEventListener("resize", () => {
  for (const one of charts) one.setSize({ width: one.root.parentElement.clientWidth, height: 150 });
});
dark.addEventListener("change", () => {
  makeCharts();
  if (shown) show(shown);
});

// Asking

async function ask() {
  const waited = new AbortController();
  const timer = setTimeout(() => waited.abort(), TIMEOUT_MS);
  try {
    const answer = await fetch(beside("status.json"), { cache: "no-store", signal: waited.signal });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const status = await answer.json();
    lastAnswer = Date.now();
    show(status);
  } catch (error) {
    noAnswer(error);
  } finally {
    clearTimeout(timer);
  }
}

function noAnswer(error) {
  at("banner").dataset.state = "trouble";
  document.title = "No answer · ECG anonymizer";
  say("headline", "The service does not answer");
  const since = lastAnswer ? ` What is below is from ${new Date(lastAnswer).toISOString().slice(11, 19)} UTC.` : "";
  say("sentence", `It has ended, or cannot be reached from here (${error.message}).${since}`);
  at("findings").replaceChildren();
  delete at("findings").dataset.shown;
}

let paused = false;
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  say("age", paused ? "Paused." : "");
});
at("as-table").addEventListener("click", () => {
  const open = at("table").hidden;
  at("table").hidden = !open;
  at("as-table").setAttribute("aria-expanded", String(open));
  say("as-table", open ? "Hide the table" : "Show as a table");
  if (shown) show(shown);
});
at("settings-details").addEventListener("toggle", async () => {
  if (at("settings").children.length) return;
  const settings = await (await fetch(beside("settings.json"))).json();
  replace(
    "settings",
    settings.map((one) => {
      const row = element("tr");
      row.append(element("td", "", one.name), element("td", "", one.value || "–"));
      return row;
    }),
  );
});

async function forever() {
  if (!paused && !document.hidden) await ask();
  setTimeout(forever, EVERY_MS);
}
forever();
