/* Keeps what a person types or chooses while an answer is on its way, on every page. Three rules:
   1. A form that is posted goes through htmx, so that the page stays while the answer is awaited.
   2. An answer is put in place around what was changed since it was asked for: such a control keeps its value, focus
      and caret, and another form with unsaved changes stays as it is.
   3. An answer that is no longer wanted (something newer is there, or its form is gone) changes nothing.
   Nothing typed is stored. Without JavaScript, forms are sent as ever. */
(() => {
  "use strict";
  const CONTROLS = "input:not([type=hidden], [type=submit], [type=button]), select, textarea";
  const UNITS = "label, [data-row], .field, tr, li";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (name, handler, target = document) => target.addEventListener(name, handler);
  const isTick = (control) => control.type === "checkbox" || control.type === "radio";
  const posts = (form) => form?.getAttribute("method") === "post";

  /* ---- when each control was last changed, on a clock that counts changes and requests ---- */
  let now = 0;
  const changedAt = new WeakMap();
  const note = ({ target }) => { if (target.matches?.(CONTROLS)) changedAt.set(target, ++now); };
  on("input", note);
  on("change", note);
  /* What a request does not know of. One that posts a form knows nothing of what other forms hold. */
  const unknownTo = (request, region) => all(CONTROLS, region).filter((control) => {
    const own = request.reads || control.form === request.form || !posts(control.form);
    return (changedAt.get(control) ?? 0) > (own ? request.at : 0);
  });
  const isUnsaved = (selector) => all(selector).some((form) => [...form.elements].some((control) => control.name && changedAt.has(control)));

  /* ---- leaving the page ---- */
  let leaving = false;
  let signedOut = false;
  on("beforeunload", (event) => { if (!leaving && isUnsaved("form[data-guard]")) event.preventDefault(); }, window);
  on("pageshow", () => { leaving = false; }, window);
  const offer = (text, address, words, apart) => {
    const toast = document.createElement("div");
    const link = Object.assign(document.createElement("a"), { href: address, textContent: words, target: apart ? "_blank" : "" });
    const said = document.createElement("p");
    Object.assign(toast, { id: "kept", className: "toast error" });
    said.append(`${text} `, link);
    toast.append(said);
    document.getElementById("kept")?.remove();
    document.getElementById("toasts").append(toast);
    document.getElementById("live").textContent = said.textContent;
  };

  /* ---- sending: posts through htmx, each once ---- */
  on("htmx:beforeProcessNode", ({ target }) => {
    if (!target.matches("form[method=post]:not([hx-post])") || !target.closest(".shell") || target.closest("[hx-boost]")) return;
    target.setAttribute("hx-boost", "true");
    target.setAttribute("hx-push-url", "false");
    target.setAttribute("hx-request", '{"timeout": 120000}');
  });
  const sending = new WeakSet();
  on("htmx:confirm", (event) => {
    const { elt, verb, triggeringEvent } = event.detail;
    const pressed = verb !== "get" && ["submit", "click"].includes(triggeringEvent?.type);
    if (pressed && (leaving || sending.has(elt))) event.preventDefault();
  });
  on("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || !posts(form) || form.matches("[hx-boost=false]")) return;
    if (sending.has(form)) { event.preventDefault(); return; }
    leaving = true;
    sending.add(form);
    setTimeout(() => { leaving = false; sending.delete(form); }, 5000); // it may have been stopped
  });
  const newest = new WeakMap();
  on("htmx:beforeRequest", ({ detail: { elt, target, requestConfig } }) => {
    requestConfig.kept = { at: ++now, form: elt.form ?? elt.closest("form"), reads: requestConfig.verb === "get", saves: elt.matches("form[method=post]") };
    sending.add(elt);
    if (target) requestConfig.kept.target = target;
  });
  on("htmx:afterRequest", ({ detail: { elt } }) => sending.delete(elt));

  /* ---- an answer that leads elsewhere waits while something typed would be lost ---- */
  on("htmx:beforeOnLoad", (event) => {
    const { xhr, requestConfig: { kept: request, headers } } = event.detail;
    const address = xhr.getResponseHeader("HX-Redirect");
    if (headers["HX-Fresh-Token"] && !address) { renew(xhr.responseText); event.preventDefault(); return; }
    if (!address) return;
    if (new URL(address, location).pathname.endsWith("/login") && (!request.reads || isUnsaved("form[method=post]"))) {
      signedOut = true;
      event.preventDefault();
      offer("You are signed out, and nothing was saved. What you typed is still here.", address, "Sign in in a new tab, then send it again", true);
    } else if (unknownTo(request, document.body).some((control) => control.name && posts(control.form))) {
      event.preventDefault();
      offer("Done. What you typed meanwhile is still here, and not saved.", address, "Go on without it");
    } else leaving = true;
  });
  /* Another session has another token; it is asked for when the person comes back from signing in. */
  const renew = (html) => {
    const token = html.match(/name="csrf_token" value="([^"]+)"/)?.[1];
    if (!token) return;
    all("input[name=csrf_token]").forEach((input) => { input.value = token; });
    signedOut = false;
    document.getElementById("kept")?.remove();
  };
  on("focus", () => {
    if (signedOut) htmx.ajax("GET", location.href, { source: document.body, swap: "none", headers: { "HX-Boosted": "true", "HX-Fresh-Token": "yes" } });
  }, window);

  /* ---- answers ---- */
  const FRESH = /^(csrf_token|draft|version.*)$/;
  const identity = (form) => [form.getAttribute("action"), form.method, ...all("input[type=hidden]", form).filter(({ name }) => !FRESH.test(name)).map(({ name, value }) => `${name}=${value}`)].join(" ");
  const twinOf = (form, region) => all("form", region).find((other) => identity(other) === identity(form));
  const likeOf = (control, region) => all(CONTROLS, region).find((other) => other.type === control.type && other.name === control.name
    && (control.name ? !isTick(control) || other.value === control.value : other.ariaLabel === control.ariaLabel));
  const parse = (html) => new DOMParser().parseFromString(html, "text/html");

  let current = null;
  on("htmx:beforeSwap", ({ detail }) => {
    const { elt, xhr, requestConfig: { kept: request, verb } } = detail;
    current = request;
    const error = xhr.status >= 400;
    /* A search within a form, or a test of what it holds, saves nothing of it. */
    if (!error && request.saves && request.form) [...request.form.elements].forEach((control) => { if (changedAt.get(control) < request.at) changedAt.delete(control); });
    const active = document.activeElement;
    request.typing = active.matches(CONTROLS) && (active.form !== request.form || changedAt.get(active) > request.at);
    if (detail.target.id === "alerts" || !detail.shouldSwap) return;
    const late = !elt.isConnected || (newest.get(detail.target) ?? 0) > request.at;
    newest.set(detail.target, Math.max(request.at, newest.get(detail.target) ?? 0));
    if (late) {
      /* Its messages are shown; the rest goes nowhere. */
      if (error) offer("Something that you sent was not saved.", location.href, "Load the page again");
      all("#toasts .toast", parse(detail.serverResponse)).forEach((toast) => document.getElementById("toasts").append(document.adoptNode(toast)));
      detail.target = document.createElement("div");
    } else if (verb === "get" && unknownTo(request, detail.target).some(({ form }) => form && detail.target.contains(form) && !twinOf(form, parse(detail.serverResponse)))) {
      detail.shouldSwap = false;
      offer("What you asked for before is here, but you have typed since.", xhr.responseURL, "Show it instead");
    }
  });
  on("htmx:afterSwap", ({ detail: { target, xhr, requestConfig: { kept: request } } }) => {
    /* What a refused form holds is still unsaved. */
    const form = xhr.status >= 400 && request.form && twinOf(request.form, target);
    if (form) all(CONTROLS, form).forEach((control) => { if (!changedAt.has(control)) changedAt.set(control, request.at); });
  });

  let number = 0;
  const pair = (live, twin) => { live.id ||= twin.id || `kept-${++number}`; twin.id = live.id; };
  const copy = (live, twin) => {
    pair(live, twin);
    if (isTick(live)) { twin.checked = false; twin.checked = live.checked; return; }
    if (live.type === "file") return;
    twin.value = live.value;
    if (twin.tagName === "INPUT") twin.setAttribute("value", live.type === "password" ? "" : live.value);
  };
  /* Put a copy of `part`, for which the answer has no place, where it stood. */
  const carry = (part, target, answer) => {
    const twin = part.cloneNode(true);
    let home = null;
    for (let above = part.parentElement; above && target.contains(above) && !home; above = above.parentElement) {
      home = above.id && answer.querySelector(`#${CSS.escape(above.id)}`);
    }
    home ||= answer.querySelector("#main") || answer;
    (home.querySelector(".checklist") || home).append(twin);
    pair(part, twin);
    return twin;
  };
  const putAround = (unknown, target, answer) => {
    const whole = new Set();
    const exact = new Set();
    unknown.forEach((control) => {
      const form = target.contains(control.form) ? control.form : null;
      const place = form ? twinOf(form, answer) : answer;
      if (!place || (form && form !== current.form && !current.reads)) { whole.add(form); return; }
      let twin = likeOf(control, place);
      if (!twin) {
        if (isTick(control) && !control.checked) return; // what was unticked is not offered any more
        const part = control.closest(UNITS);
        twin = likeOf(control, carry(part && target.contains(part) ? part : control, target, answer).parentNode);
      }
      copy(control, twin);
      exact.add(control);
    });
    whole.forEach((form) => {
      const twin = twinOf(form, answer) || carry(form, target, answer);
      pair(form, twin);
      twin.replaceChildren();
    });
    Idiomorph.morph(target, answer, {
      morphStyle: "innerHTML",
      callbacks: {
        beforeNodeMorphed: (live) => !(whole.has(live) || exact.has(live) || live.matches?.("dialog[open]")),
        beforeAttributeUpdated: (name, live) => !(name === "open" && live.matches("details")),
      },
    });
    return [...target.children];
  };
  htmx.defineExtension("keep", {
    handleSwap: (style, target, answer) => {
      if (style !== "innerHTML" || !current || !target.isConnected || target.id === "alerts") return false;
      const unknown = unknownTo(current, target);
      const around = unknown.length || target === document.body || (current.typing && target.contains(document.activeElement));
      return around ? putAround(unknown, target, answer) : false;
    },
  });
})();
