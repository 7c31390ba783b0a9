"use strict";
// Writes the rows of the devices: at most STEP at once. What is shown stands in the fragment of the address, so that a
// link leads to it: #q=router&show=held&sort=seen&down.
(() => {
  const STEP = 200;
  const at = (id) => document.getElementById(id);
  const [body, search, show, sort, more] = ["devices", "search", "show", "sort", "more"].map(at);
  const columns = [...body.querySelectorAll("button")].map((button) => button.dataset.sort);
  const labels = [...body.querySelectorAll("button")].map((button) => button.textContent);
  const urgency = [...show.options].map((option) => option.value);
  const colors = { "in sync": "green", "changes": "blue", "held": "yellow", "not read": "red", "locked out": "red", "denied": "yellow" };
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const devices = JSON.parse(at("data").textContent);
  for (const device of devices) {
    const changes = (device.changes || []).flatMap((change) => [change.field, ...change.words, change.note || ""]);
    const texts = [device.name, device.node, device.owner, device.os, device.ip, device.state, ...changes];
    device.text = texts.concat(device.policies || []).join("\n").toLowerCase();
  }
  let [sorted, down, limit] = ["name", false, STEP];

  const keys = {
    policies: (device) => (device.policies || []).join(),
    state: (device) => String(urgency.indexOf(device.state)),
  };
  const shows = {
    all: () => true,
    routers: (device) => device.router,
    exits: (device) => device.exit,
  };

  const element = (name, kind, text) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text) made.textContent = text;
    return made;
  };
  const sign = { "+": "plus", "-": "minus" };
  const cells = {
    name: (device, cell) => cell.append(device.name, element("small", "", [device.ip, device.node].filter(Boolean).join(" · "))),
    policies: (device, cell) => {
      for (const key of device.policies || []) cell.append(element("div", "", key));
    },
    state: (device, cell) => {
      if (device.state) cell.append(element("span", "badge " + (colors[device.state] || ""), device.state));
      for (const change of device.changes || []) {
        const line = element("div", "change");
        line.append(element("code", "", change.field));
        for (const word of change.words) line.append(" ", element("span", "word " + (sign[word[0]] || ""), word));
        if (change.note) line.append(element("small", "", change.note));
        cell.append(line);
      }
    },
    routes: (device, cell) => cell.append([device.routes, device.exit && "exit node"].filter(Boolean).join(", ")),
    owner: (device, cell) => cell.append(device.owner.split(",").join(", ")),
  };

  const row = (device) => {
    const made = element("tr");
    columns.forEach((column, index) => {
      const cell = element("td", column);
      cell.dataset.label = labels[index];
      const written = element("div");
      (cells[column] || ((device, cell) => cell.append(device[column])))(device, written);
      if (!written.textContent) cell.classList.add("empty");
      cell.append(written);
      made.append(cell);
    });
    return made;
  };

  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const passes = shows[show.value] || ((device) => device.state === show.value);
    const found = devices.filter((device) => passes(device) && words.every((word) => device.text.includes(word)));
    const key = keys[sorted] || ((device) => device[sorted]);
    // What is empty comes last, whatever the direction.
    found.sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (!a || !b) return Number(!a) - Number(!b);
      return down ? compare(b, a) : compare(a, b);
    });
    body.tBodies[0].replaceChildren(...found.slice(0, limit).map(row));
    more.hidden = found.length <= limit;
    at("nothing").hidden = found.length > 0;
    const total = devices.length.toLocaleString("en");
    at("count").textContent = `${found.length.toLocaleString("en")} of ${total} devices`;
    body.querySelectorAll("th").forEach((title, index) => {
      const direction = down ? "descending" : "ascending";
      title.setAttribute("aria-sort", columns[index] === sorted ? direction : "none");
    });
    sort.value = sorted;
  };

  const changed = () => {
    limit = STEP;
    const parts = new URLSearchParams();
    if (search.value) parts.set("q", search.value);
    if (show.value !== "all") parts.set("show", show.value);
    if (sorted !== "name") parts.set("sort", sorted);
    if (down) parts.set("down", "");
    history.replaceState(null, "", "#" + parts);
    draw();
  };
  const follow = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    search.value = parts.get("q") || "";
    show.value = parts.get("show") || "all";
    if (!show.value) show.value = "all";
    sorted = columns.includes(parts.get("sort")) ? parts.get("sort") : "name";
    down = parts.has("down");
    limit = STEP;
    draw();
    return parts.has("q") || parts.has("show");
  };

  search.addEventListener("input", changed);
  show.addEventListener("change", changed);
  sort.addEventListener("change", () => { [sorted, down] = [sort.value, false]; changed(); });
  body.tHead.addEventListener("click", (event) => {
    const column = event.target.dataset.sort;
    if (!column) return;
    [sorted, down] = [column, column === sorted && !down];
    changed();
  });
  more.addEventListener("click", () => { limit += STEP; draw(); });
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => {
    // A link to a part of the page is no search.
    if (location.hash === "#changes") return;
    if (follow()) at("list").scrollIntoView();
  });
  follow();
})();
