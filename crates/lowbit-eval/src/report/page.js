"use strict";
// What a report does beyond being read: tables are sorted by a click on a head, and a click on a number tells where it comes from.
(() => {
  const records = JSON.parse(document.getElementById("records").textContent);
  const add = (to, tag, text, name) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (name) made.className = name;
    to.append(made);
    return made;
  };

  const key = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.v === undefined ? cell.firstChild?.textContent.trim() ?? "" : Number(cell.dataset.v);
  };
  const compare = (a, b) => {
    const numbers = [typeof a === "number", typeof b === "number"];
    if (numbers[0] !== numbers[1]) return numbers[0] ? -1 : 1;
    return numbers[0] ? a - b : a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (!body || body.rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [key(row, at), row]);
        // What has no value stays at the end.
        rows.sort(([a], [b]) => (typeof a === typeof b ? compare(a, b) * (down ? -1 : 1) : compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  const box = add(document.body, "aside", "", "origin");
  box.hidden = true;
  box.setAttribute("aria-live", "polite");
  const hide = () => (box.hidden = true);
  const show = (from) => {
    const record = records.records[from.dataset.r];
    const measure = record.measures[from.dataset.m];
    const facts = [];
    if (measure) {
      facts.push(["Value", `${measure.value} ${measure.unit}`], ["Observations", measure.n], ["How", measure.how]);
      if (measure.lo !== undefined) facts.push(["Range", `${measure.lo} to ${measure.hi}`]);
    } else {
      facts.push(["How", "computed from the records of the variant and of the reference, as Method says"]);
    }
    facts.push(["Task", record.task], ["Variant", `${record.model}, ${record.detail.made}, recipe ${record.recipe}`]);
    if (record.detail.seed !== undefined) facts.push(["Seed", record.detail.seed]);
    if (record.detail.model_sha256) facts.push(["SHA-256 of its weights", record.detail.model_sha256]);
    facts.push(["Machine", `${records.host.cpu}, ${records.host.threads} threads, ${records.host.isa}`]);
    facts.push(["Program", `lowbit ${records.tool.version}, commit ${records.tool.commit}`], ["Command", records.command.join(" ")]);
    box.replaceChildren();
    add(box, "h2", from.title || from.textContent);
    const close = add(box, "button", "\u00d7");
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", hide);
    const list = add(box, "dl");
    for (const [name, value] of facts) {
      const pair = add(list, "div");
      add(pair, "dt", name);
      add(pair, "dd", String(value));
    }
    box.hidden = false;
    close.focus();
  };
  for (const from of document.querySelectorAll("[data-r]")) {
    if (from.closest("header")) from.tabIndex = 0;
    from.addEventListener("click", () => show(from));
    from.addEventListener("keydown", (event) => event.key === "Enter" && show(from));
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
