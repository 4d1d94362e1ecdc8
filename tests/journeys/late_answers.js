/* Runs in the page. A control is found again by its form, its name and, where it is ticked, its value. */
window.late = (() => {
  const CONTROLS = "input:not([type=hidden], [type=submit], [type=button], [type=file]), select, textarea";
  const all = (selector) => [...document.querySelectorAll(selector)].filter((part) => part.checkVisibility() && !part.disabled);
  const isTick = (control) => ["checkbox", "radio"].includes(control.type);
  const who = (form) => form ? [form.getAttribute("action"), ...[...form.querySelectorAll("input[type=hidden]")]
    .filter(({ name }) => !/^(csrf_token|draft|version.*)$/.test(name)).map(({ name, value }) => name + "=" + value)].join(" ") : "";
  const key = (control) => [who(control.form), control.type, control.name || control.ariaLabel, isTick(control) ? control.value : ""].join(" | ");
  const state = (control) => isTick(control) ? control.checked : control.value;
  const tell = (control) => ["input", "change"].forEach((name) => control.dispatchEvent(new Event(name, { bubbles: true })));
  let trigger = null;
  let caret = null;
  return {
    triggers() {
      const found = new Map();
      const add = (text, part) => { if (!found.has(text)) found.set(text, part); };
      all("button").filter((button) => (button.type === "submit" && button.form?.getAttribute("method") === "post"
          && !button.dataset.addRow && !button.form.matches("[hx-boost=false]") && !button.form.action.endsWith("/logout")) || button.matches("[hx-post], [hx-get]"))
        .forEach((button) => add("press " + (button.formAction || "").replace(/\?.*/, "") + " " + button.textContent.trim(), button));
      all("form[hx-get]").forEach((form) => { const box = [...form.elements].find((control) => control.matches(CONTROLS) && control.checkVisibility()); if (box) add("type " + key(box), box); });
      all("input[hx-get], input[hx-post]").forEach((box) => add("type " + key(box), box));
      all("a[hx-get]").slice(0, 2).forEach((link) => add("open " + link.getAttribute("href"), link));
      this.found = found;
      return [...found.keys()];
    },
    set_off(name) {
      trigger = this.found.get(name);
      if (trigger.form) trigger.form.noValidate = true;
      if (trigger.matches("button, a")) { trigger.click(); return; }
      if (trigger.tagName === "SELECT") trigger.selectedIndex = (trigger.selectedIndex + 1) % trigger.options.length;
      else if (isTick(trigger)) trigger.checked = !trigger.checked;
      else trigger.value = trigger.value + "a";
      tell(trigger);
    },
    others: () => all(CONTROLS).filter((control) => control !== trigger && control.form?.getAttribute("method") === "post").length,
    change() {
      const typed = [];
      for (const control of all(CONTROLS)) {
        if (control === trigger || control.readOnly || !(control.form?.getAttribute("method") === "post")) continue;
        if (control.type === "radio" && (control.checked || typed.some(([other]) => other.name === control.name && other.form === control.form))) continue;
        if (isTick(control)) control.checked = control.type === "radio" || !control.checked;
        else if (control.tagName === "SELECT") { if (control.options.length < 2) continue; control.selectedIndex = (control.selectedIndex + 1) % control.options.length; }
        else if (/number|range|color|date/.test(control.type)) continue;
        else control.value = control.value + "late";
        control.dispatchEvent(new Event("change", { bubbles: true }));
        typed.push([control]);
      }
      /* Changing one may hide another; only what is still shown counts. */
      const texts = typed.map(([control]) => control).filter((control) => control.checkVisibility() && !isTick(control) && control.tagName !== "SELECT" && !control.matches("[hx-post], [hx-get]"));
      caret = texts.at(-1) ?? null;
      if (caret) { caret.focus(); if (caret.setSelectionRange && caret.type !== "email") caret.setSelectionRange(1, 1); }
      this.typed = typed.map(([control]) => control);
      window.stayed = true;
      return Boolean(caret);
    },
    snapshot() { return { values: this.typed.map((control) => [key(control), state(control)]), caret: caret && [key(caret), caret.type === "email" ? null : caret.selectionStart] }; },
    lost({ values, caret }) {
      if (!window.stayed) return ["the page"];
      const there = [...document.querySelectorAll(CONTROLS)];
      const gone = values.filter(([name, value]) => !there.some((control) => key(control) === name && state(control) === value)).map(([name]) => name);
      const active = document.activeElement;
      if (caret && !(active.matches(CONTROLS) && key(active) === caret[0])) gone.push("focus on " + caret[0]);
      else if (caret && caret[1] !== null && active.selectionStart !== caret[1]) gone.push("the caret in " + caret[0]);
      return gone;
    },
  };
})();
