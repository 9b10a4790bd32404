// Keeps the approvals pages up to date: listens to changes of cases, asks for the page again and takes over the parts
// marked `data-live`. What a person is typing stays; what they were shown is never changed under them.

const STREAM = "/api/v1/approvals/stream";
const SOON_MS = 100;
const AT_MOST_EVERY_MS = 1000; // each look is a record in the trail

const byId = (id) => document.getElementById(id);
const card = byId("card");
const freshness = byId("freshness");
const address = freshness.dataset.page ?? location.href; // a refused form's answer has the form's address
const clockAheadMs = Date.now() - Date.parse(freshness.dataset.now); // of this machine, against the gateway's

let stream = null;
let timer = null;
let asking = false;
let askAgain = false;
let askedAtMs = -Infinity;
let over = false; // this page is not kept up to date any more; it must be loaded again

// ---------------------------------------------------------------- the stream

function listen() {
  if (stream !== null || document.hidden || over) return;
  stream = new EventSource(STREAM); // it reconnects by itself
  stream.addEventListener("open", () => {
    fresh(true);
    refreshSoon(); // what changed while nobody listened
  });
  stream.addEventListener("case", (event) => {
    if (concerns(JSON.parse(event.data).id)) refreshSoon();
  });
  stream.addEventListener("error", () => {
    fresh(false);
    if (stream !== null && stream.readyState === EventSource.CLOSED) stop("The gateway tells of no more changes here.");
  });
}

// A browser opens few connections to one place; a page that nobody sees gives its own back.
function rest() {
  if (stream === null) return;
  stream.close();
  stream = null;
  fresh(false);
}

function concerns(id) {
  if (card === null) return true; // the queue
  const like = byId("like");
  return address.endsWith(`/${id}`) || (like?.dataset.ids ?? "").split(" ").includes(id);
}

function fresh(live) {
  freshness.textContent = live ? "Kept up to date" : "Not up to date: trying again";
  freshness.classList.toggle("live", live);
}

function stop(why) {
  over = true;
  rest();
  clearTimeout(timer);
  freshness.textContent = "No longer kept up to date";
  tell(`${why} `);
}

// ---------------------------------------------------------------- asking again

function refreshSoon() {
  if (over) return;
  if (asking) {
    askAgain = true;
    return;
  }
  if (timer !== null) return;
  timer = setTimeout(refresh, Math.max(SOON_MS, askedAtMs + AT_MOST_EVERY_MS - Date.now()));
}

async function refresh() {
  timer = null;
  asking = true;
  askedAtMs = Date.now();
  try {
    const answer = await fetch(address, { cache: "no-store", credentials: "same-origin" });
    if (answer.ok && !answer.redirected) take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    else if (answer.status < 500) stop("This page can't be asked for again.");
    else fresh(false);
  } catch {
    fresh(false); // not reached; the stream is gone too, and asks again when it is back
  } finally {
    asking = false;
    if (askAgain) {
      askAgain = false;
      refreshSoon();
    }
  }
}

function take(page) {
  if (card !== null && page.getElementById("card")?.dataset.card !== card.dataset.card) {
    over = true;
    close(byId("panel"));
    rest();
    freshness.textContent = "Out of date";
    tell("What is asked for has changed: the case is not what you see here any more, so no vote is taken from this page. ");
    return;
  }
  for (const region of document.querySelectorAll("[data-live]")) {
    const next = page.getElementById(region.id);
    if (next !== null) replace(region, next);
  }
  takePanel(page);
  document.title = page.title;
  count();
}

function replace(region, next) {
  for (const { name, value } of next.attributes) region.setAttribute(name, value);
  const inside = region.contains(document.activeElement) ? document.activeElement : null;
  const place = inside?.getAttribute("href");
  const unfolded = [...region.querySelectorAll("details")].map((one) => one.open);
  region.replaceChildren(...[...next.childNodes].map((node) => document.importNode(node, true)));
  region.querySelectorAll("details").forEach((one, at) => (one.open = unfolded[at] ?? one.open));
  if (place) region.querySelector(`a[href="${CSS.escape(place)}"]`)?.focus();
}

// The forms: left alone while they are the same; another person's vote only moves the version they name.
function takePanel(page) {
  const now = byId("panel");
  const next = page.getElementById("panel");
  if (now === null || next === null) return;
  if (now.dataset.forms === next.dataset.forms) {
    for (const field of now.querySelectorAll('input[name="version"]')) field.value = next.dataset.version;
    return;
  }
  if (busy(now)) {
    close(now);
    tell("The case has moved on while you were writing; nothing of it was sent. ");
    return;
  }
  replace(now, next);
}

function busy(panel) {
  const fields = [...panel.querySelectorAll('textarea, input[type="text"]')];
  return fields.some((field) => field === document.activeElement || field.value !== field.defaultValue);
}

function close(panel) {
  for (const button of panel?.querySelectorAll("button") ?? []) button.disabled = true;
}

function tell(text) {
  const link = document.createElement("a");
  link.href = address;
  link.textContent = "Load it again";
  const notice = byId("notice");
  notice.replaceChildren(text, link);
  notice.hidden = false;
}

// ---------------------------------------------------------------- time

function count() {
  const now = Date.now() - clockAheadMs;
  for (const one of document.querySelectorAll("[data-until]")) show(one, Date.parse(one.dataset.until) - now);
  for (const one of document.querySelectorAll("[data-since]")) show(one, now - Date.parse(one.dataset.since));
}

function show(element, ms) {
  const text = span(Math.max(0, Math.floor(ms / 1000)));
  if (element.textContent !== text) element.textContent = text;
}

// As `span` of case_view.py writes it.
function span(seconds) {
  for (const [size, unit, smaller, small] of [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ]) {
    if (seconds < size) continue;
    const rest = Math.floor((seconds % size) / smaller);
    const whole = `${Math.floor(seconds / size)} ${unit}`;
    return rest ? `${whole} ${rest} ${small}` : whole;
  }
  return `${seconds} s`;
}

document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
window.addEventListener("pageshow", listen);
window.addEventListener("pagehide", rest);
setInterval(count, 1000);
listen();
