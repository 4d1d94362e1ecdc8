/* MCP Portal: behavior of pages, in addition to keep.js. It has no state and no requests, and creates only toasts and
   cloned rows. All events are delegated to the document, so content loaded by htmx needs no setup. The portal also
   works without JavaScript. */
(() => {
  "use strict";
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (name, handler, target = document) => target.addEventListener(name, handler);

  /* ---- messages: toasts, and #live for screen readers ---- */
  const say = (text) => { find("#live").textContent = text; };
  const FADE_MS = 8000;
  /* A message stays while the page is hidden or busy, and while the pointer or focus is on it. */
  const fade = (toast, wait = FADE_MS) => setTimeout(() => {
    if (document.hidden || find(".htmx-request") || toast.matches(":hover, :focus-within")) fade(toast, FADE_MS / 4);
    else toast.remove();
  }, wait);
  const settleToasts = () => all(".toast[data-toast]").forEach((toast) => {
    toast.removeAttribute("data-toast");
    say(find("p", toast).textContent);
    if (!toast.classList.contains("error")) fade(toast);
  });
  const complain = (text) => {
    const toast = document.createElement("div");
    const words = document.createElement("p");
    toast.className = "toast error";
    toast.dataset.toast = "";
    words.textContent = text;
    toast.append(words);
    find("#toasts").append(toast);
    settleToasts();
    fade(toast, 2 * FADE_MS);
  };

  /* ---- actions of buttons ---- */
  const copy = async (button) => {
    const source = find(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent);
      say("Copied");
      const words = find("span", button);
      if (words) { const before = words.textContent; words.textContent = "Copied"; setTimeout(() => { words.textContent = before; }, 1500); }
    } catch {
      getSelection().selectAllChildren(source);
      say("Press Control C to copy");
    }
  };
  const reveal = (button) => {
    const input = document.getElementById(button.dataset.reveal);
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", String(shown));
  };
  const addRow = (button) => {
    const template = document.getElementById(`new-${button.dataset.addRow}`);
    const rows = find(button.dataset.rows);
    const taken = all("[data-row]", rows).map((row) => Number(row.dataset.row));
    const next = String(Math.max(-1, ...taken) + 1);
    const holder = document.createElement("template");
    holder.innerHTML = template.innerHTML.replaceAll("__index__", next);
    rows.append(holder.content);
    const field = find("input:not([type=hidden]), select", rows.lastElementChild);
    field.focus();
    field.dispatchEvent(new Event("input", { bubbles: true })); // an added row is a change
    checkNames();
  };
  on("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { copy: toCopy, reveal: toReveal, open, dismiss, addRow: toAdd } = button.dataset;
    if (toCopy) copy(button);
    if (toReveal) reveal(button);
    if (dismiss) button.closest(dismiss).remove();
    if (open) { button.closest("[popover]")?.hidePopover(); document.getElementById(open).showModal(); }
    if (toAdd) { event.preventDefault(); addRow(button); }
  });

  /* ---- fields that depend on others: data-show-when="transport=http,sse auth_type=oauth2" (all must be true) ---- */
  const chosen = (form, name) => {
    const field = form.elements[name];
    if (!field) return [""];
    if (field.type === "checkbox") return [field.checked ? "yes" : "no"];
    return field.type === "textarea" ? field.value.toLowerCase().split(/\s+/) : [field.value];
  };
  const showWhatApplies = (form) => all("[data-show-when]", form).forEach((part) => {
    part.hidden = !part.dataset.showWhen.split(" ").every((rule) => {
      const [name, values] = rule.split("=");
      return chosen(form, name).some((value) => values.split(",").includes(value));
    });
  });

  /* ---- ${NAME}: variables used by headers, and names that are not declared ---- */
  const NAMES = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;
  const usedBy = (row) => {
    const keeps = find("[value=keep]:checked", row);
    return keeps ? (row.dataset.stored || "").split(" ").filter(Boolean) : [...find("[data-uses]", row).value.matchAll(NAMES)].map((match) => match[1]);
  };
  const checkNames = () => {
    const editor = find("[data-names]");
    if (!editor) return;
    const variables = all("[data-variable]", editor).map((row) => [find("[data-name]", row).value.trim(), row]);
    const declared = new Set(variables.map(([name]) => name));
    const users = new Map();
    all("[data-header]", editor).forEach((row) => {
      const header = find("[data-name]", row).value.trim() || "this header";
      const note = find("[data-note]", row);
      const names = [...new Set(usedBy(row))];
      note.replaceChildren(names.length ? "Uses " : "");
      names.forEach((name, index) => {
        const word = document.createElement("code");
        word.textContent = `\${${name}}`;
        if (!declared.has(name)) { word.className = "unknown-name"; }
        note.append(index ? ", " : "", word, declared.has(name) ? "" : " (not among your variables)");
        users.set(name, [...(users.get(name) || []), header]);
      });
    });
    variables.forEach(([name, row]) => {
      const headers = users.get(name) || [];
      find("[data-note]", row).textContent = headers.length ? `Used by ${headers.join(", ")}` : "Not used in any header";
    });
  };

  /* ---- long checklists are filtered by the input ---- */
  const narrow = (box) => all(".check, li", find(box.dataset.narrow)).forEach((line) => {
    line.hidden = !line.textContent.toLowerCase().includes(box.value.trim().toLowerCase());
  });

  on("input", (event) => {
    if (event.target.dataset.narrow) { narrow(event.target); return; }
    if (event.target.closest("[data-names]")) checkNames();
  });
  on("change", (event) => {
    if (event.target.form) showWhatApplies(event.target.form);
    if (event.target.closest("[data-names]")) checkNames();
  });
  /* Secrets must not be restored from the back/forward cache. */
  on("pagehide", () => all("input[type=password], [data-secret]").forEach((input) => { input.value = ""; }), window);

  /* ---- htmx: dialogs, focus, busy state, polling, errors ---- */
  const dialog = () => find("#dialog");
  let opener = null;
  let openerItem = null;
  /* Empty filters are not added to the URL. */
  on("htmx:configRequest", ({ detail }) => {
    if (detail.verb !== "get") return;
    [...detail.formData.entries()].forEach(([name, value]) => { if (value === "") detail.formData.delete(name); });
  });
  on("htmx:beforeRequest", (event) => {
    const { elt, target } = event.detail;
    if (document.hidden && elt.hasAttribute("data-poll")) { event.preventDefault(); return; }
    if (!dialog()?.open) { opener = elt; openerItem = elt.closest("[data-item]"); }
    if (!elt.hasAttribute("data-poll")) target?.setAttribute("aria-busy", "true");
  });
  on("htmx:afterRequest", (event) => {
    event.detail.target?.removeAttribute("aria-busy");
    if (event.detail.xhr.status > 0 && event.detail.xhr.status < 400) find("#alerts")?.replaceChildren();
  });
  on("htmx:beforeSwap", (event) => {
    const { detail } = event;
    const behind = detail.target?.id === "alerts" && dialog()?.open;
    if (behind) detail.target = find("#dialog-alerts");
  });
  on("htmx:afterSwap", (event) => {
    const target = event.detail.target;
    settleToasts();
    if (target.id === "dialog-slot" && !dialog().open && target.childElementCount) {
      const heading = find("h1, h2", target);
      if (heading) dialog().setAttribute("aria-label", heading.textContent.trim().replace(/\s+/g, " "));
      find("#dialog-alerts").replaceChildren();
      dialog().showModal();
    }
    if (target.id === "alerts") target.scrollIntoView({ block: "nearest" });
    if (!event.detail.requestConfig.kept.typing) (find("[data-error-summary]", target) || find("[data-focus]", target))?.focus();
    all("form", target).forEach(showWhatApplies);
    checkNames();
  });
  /* "close" does not bubble, so it is handled in the capture phase. */
  document.documentElement.addEventListener("close", (event) => {
    if (event.target.id !== "dialog") return;
    find("#dialog-slot").replaceChildren();
    /* If the element that opened the dialog was removed, its card gets the focus. */
    if (opener?.isConnected) opener.focus();
    else if (openerItem?.isConnected) find("a", openerItem).focus();
  }, true);
  on("htmx:sendError", () => complain("No connection. Nothing was saved. Try again."));
  on("htmx:timeout", () => complain("The request timed out. Check whether it succeeded before you try again."));

  /* ---- keyboard shortcuts: / search, j and k through a list, ? help. Disabled in text fields and dialogs.
     data-key="a" sets the shortcut of a button: in the focused item or, on pages without a list, on the page. ---- */
  const step = (by) => {
    const items = all("[data-list] [data-item]");
    if (!items.length) return;
    const at = items.findIndex((item) => item.contains(document.activeElement));
    const next = items[Math.min(items.length - 1, Math.max(0, at + by))];
    find("a, button", next).focus();
    next.scrollIntoView({ block: "nearest" });
  };
  const press = (key) => {
    const within = document.activeElement.closest("[data-item]") || (find("[data-list]") ? null : document);
    if (within) find(`[data-key="${CSS.escape(key)}"]`, within)?.click();
  };
  on("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input:not([type=checkbox]), textarea, select") || find("dialog[open]")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "?") find("#shortcuts")?.showModal();
    else if (event.key === "/" && find("[data-search]")) { event.preventDefault(); find("[data-search]").select(); }
    else press(event.key);
  });

  settleToasts();
  all("form").forEach(showWhatApplies);
  checkNames();
  find("[data-error-summary]")?.focus();
})();
