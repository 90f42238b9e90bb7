// Draws a sortable table and the accuracies against the radius for each dataset and threat model, from embedded entries.
(() => {
  const entries = JSON.parse(document.getElementById("leaderboard-entries").textContent);
  const root = document.getElementById("leaderboard");
  const colours = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f"];
  const percent = (share) => (share === undefined ? "" : (100 * share).toFixed(1));
  const make = (name, attributes = {}, text = "") => {
    const element = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
  };
  const drawn = (name, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
  };
  const certified = (entry) => (entry.certified && entry.certified.accuracy) || {};

  const groups = new Map();
  entries.forEach((entry) => {
    const key = `${entry.dataset}; ${Object.entries(entry.threat_model).map(([name, value]) => `${name} = ${value}`).join(", ")}`;
    groups.set(key, [...(groups.get(key) || []), entry]);
  });

  function picture(members, radii, chosen) {
    const [width, height, left, bottom] = [520, 280, 44, 36];
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "leaderboard-picture" });
    svg.append(drawn("title", {}, "Robust and certified accuracy against the radius"));
    const largest = Math.max(...radii);
    const x = (radius) => left + (radius / largest) * (width - left - 12);
    const y = (share) => height - bottom - share * (height - bottom - 12);
    [0, 0.25, 0.5, 0.75, 1].forEach((share) => {
      svg.append(drawn("line", { x1: left, x2: width - 12, y1: y(share), y2: y(share), class: "grid" }));
      svg.append(drawn("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
    });
    radii.forEach((radius) =>
      svg.append(drawn("text", { x: x(radius), y: height - bottom + 16, "text-anchor": "middle" }, `${radius}`)));
    svg.append(drawn("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "ε"));
    members.forEach((entry, place) => {
      if (chosen && chosen !== entry.name) return;
      const colour = colours[place % colours.length];
      const upper = [[0, entry.natural_accuracy], ...radii.filter((radius) => entry.robust_accuracy[radius] !== undefined)
        .map((radius) => [radius, entry.robust_accuracy[radius]])];
      const lower = radii.filter((radius) => certified(entry)[radius] !== undefined)
        .map((radius) => [radius, certified(entry)[radius]]);
      const path = (points) => points.map(([radius, share]) => `${x(radius)},${y(share)}`).join(" ");
      if (lower.length) {
        lower.unshift([0, entry.natural_accuracy]);
        svg.append(drawn("polygon", { points: `${path(upper)} ${path([...lower].reverse())}`, fill: colour, opacity: 0.15 }));
        svg.append(drawn("polyline", { points: path(lower), stroke: colour, class: "certified" }));
      }
      svg.append(drawn("polyline", { points: path(upper), stroke: colour, class: "robust" }));
    });
    return svg;
  }

  groups.forEach((members, caption) => {
    const radii = [...new Set(members.flatMap((entry) => Object.keys(entry.robust_accuracy)))].sort((a, b) => a - b);
    const columns = [
      { title: "classifier", value: (entry) => entry.name, text: (entry) => entry.name },
      { title: "natural", value: (entry) => entry.natural_accuracy, text: (entry) => percent(entry.natural_accuracy) },
      ...radii.map((radius) => ({
        title: `ε = ${radius}`,
        value: (entry) => entry.robust_accuracy[radius] ?? -1,
        text: (entry) => {
          const proved = certified(entry)[radius];
          const robust = percent(entry.robust_accuracy[radius]);
          return proved === undefined ? robust : `${percent(proved)} to ${robust}`;
        },
      })),
      { title: "weights", value: (entry) => entry.num_weights ?? 0, text: (entry) => (entry.num_weights ?? 0).toLocaleString("en") },
    ];
    const state = { column: 1 + Math.ceil(radii.length / 2), falling: true, chosen: null };
    const section = make("section");
    section.append(make("h2", {}, caption));
    const place = make("div");
    const frame = make("div", { class: "leaderboard-table" });
    const table = make("table");
    const head = make("tr");
    const body = make("tbody");
    columns.forEach((column, index) => {
      const cell = make("th", { scope: "col" });
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => {
        state.falling = state.column === index ? !state.falling : index > 0;
        state.column = index;
        draw();
      });
      cell.append(button);
      head.append(cell);
    });
    const header = make("thead");
    header.append(head);
    table.append(header, body);
    frame.append(table);
    section.append(frame, place);
    root.append(section);

    function draw() {
      const { value } = columns[state.column];
      const sorted = [...members].sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        return (a < b ? -1 : a > b ? 1 : 0) * (state.falling ? -1 : 1);
      });
      [...head.children].forEach((cell, index) =>
        cell.setAttribute("aria-sort", index !== state.column ? "none" : state.falling ? "descending" : "ascending"));
      body.replaceChildren(...sorted.map((entry) => {
        const row = make("tr", { title: `${entry.description} (${entry.attacks.join(", ")}; ${entry.num_images} images)` });
        columns.forEach((column, index) => {
          const cell = make(index ? "td" : "th", index ? {} : { scope: "row" });
          if (index) cell.textContent = column.text(entry);
          else {
            const button = make("button", { type: "button" }, column.text(entry));
            button.style.setProperty("--line", colours[members.indexOf(entry) % colours.length]);
            button.setAttribute("aria-pressed", String(state.chosen === entry.name));
            button.addEventListener("click", () => {
              state.chosen = state.chosen === entry.name ? null : entry.name;
              draw();
            });
            cell.append(button);
          }
          row.append(cell);
        });
        return row;
      }));
      place.replaceChildren(picture(members, radii.map(Number), state.chosen));
    }
    draw();
  });
})();
