/* Keeps user input that is entered during a request, on all pages. There are three rules:
   1. Forms are posted through htmx, so that the page stays during the request.
   2. A response is merged into the page: controls changed since the request keep their value, focus and caret, and
      other forms with unsaved changes stay as they are.
   3. An outdated response (there is a newer one, or its form was removed) changes nothing.
   Input is not stored. Without JavaScript, forms are posted normally. */
(() => {
  "use strict";
  const CONTROLS = "input:not([type=hidden], [type=submit], [type=button]), select, textarea";
  const UNITS = "label, [data-row], .field, tr, li";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (name, handler, target = document) => target.addEventListener(name, handler);
  const isTick = (control) => control.type === "checkbox" || control.type === "radio";
  const posts = (form) => form?.getAttribute("method") === "post";

  /* ---- time of the last change of each control, on a clock that counts changes and requests ---- */
  let now = 0;
  const changedAt = new WeakMap();
  const note = ({ target }) => { if (target.matches?.(CONTROLS)) changedAt.set(target, ++now); };
  on("input", note);
  on("change", note);
  /* The controls changed since a request. A posted form does not include the controls of other forms. */
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

  /* ---- submitting: posts through htmx, each only once ---- */
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
    setTimeout(() => { leaving = false; sending.delete(form); }, 5000); // the request may have been stopped
  });
  const newest = new WeakMap();
  on("htmx:beforeRequest", ({ detail: { elt, target, requestConfig } }) => {
    requestConfig.kept = { at: ++now, form: elt.form ?? elt.closest("form"), reads: requestConfig.verb === "get", saves: elt.matches("form[method=post]") };
    requestConfig.kept.messages = new Set(all("#toasts .toast"));
    sending.add(elt);
    if (target) requestConfig.kept.target = target;
  });
  on("htmx:afterRequest", ({ detail: { elt } }) => sending.delete(elt));

  /* ---- a redirect waits if it would lose user input ---- */
  on("htmx:beforeOnLoad", (event) => {
    const { xhr, requestConfig: { kept: request, headers } } = event.detail;
    const address = xhr.getResponseHeader("HX-Redirect");
    if (headers["HX-Fresh-Token"] && !address) { renew(xhr.responseText); event.preventDefault(); return; }
    if (!address) return;
    if (new URL(address, location).pathname.endsWith("/login") && (!request.reads || isUnsaved("form[method=post]"))) {
      signedOut = true;
      event.preventDefault();
      offer("You are signed out. Nothing was saved, but your input is still here.", address, "Sign in in a new tab, then submit again", true);
    } else if (unknownTo(request, document.body).some((control) => control.name && posts(control.form))) {
      event.preventDefault();
      offer("Done. Your newer input is still here and not saved.", address, "Continue without it");
    } else leaving = true;
  });
  /* A new session has a new CSRF token, which is requested when the user returns from signing in. */
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

  /* ---- responses ---- */
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
    /* A search in a form, or a test of its input, does not save it. */
    if (!error && request.saves && request.form) [...request.form.elements].forEach((control) => { if (changedAt.get(control) < request.at) changedAt.delete(control); });
    const active = document.activeElement;
    request.typing = active.matches(CONTROLS) && (active.form !== request.form || changedAt.get(active) > request.at);
    if (detail.target.id === "alerts" || !detail.shouldSwap) return;
    const late = !elt.isConnected || (newest.get(detail.target) ?? 0) > request.at;
    newest.set(detail.target, Math.max(request.at, newest.get(detail.target) ?? 0));
    if (late) {
      /* Only its messages are shown. */
      if (error) offer("A change was not saved.", location.href, "Reload the page");
      all("#toasts .toast", parse(detail.serverResponse)).forEach((toast) => document.getElementById("toasts").append(document.adoptNode(toast)));
      detail.target = document.createElement("div");
    } else if (verb === "get" && unknownTo(request, detail.target).some(({ form }) => form && detail.target.contains(form) && !twinOf(form, parse(detail.serverResponse)))) {
      detail.shouldSwap = false;
      offer("New content is available, but you have unsaved input.", xhr.responseURL, "Show the new content");
    }
  });
  on("htmx:afterSwap", ({ detail: { target, xhr, requestConfig: { kept: request } } }) => {
    /* The input of a rejected form is still unsaved. */
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
  /* Add a copy of `part`, which the response does not contain, at its previous position. */
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
  /* Messages that came since the request stay: one that waits for the next page is sent with the next answer, whichever
     that is. */
  const keepMessages = (target, answer) => {
    const home = target.contains(document.getElementById("toasts")) && answer.querySelector("#toasts");
    if (home) all("#toasts .toast").filter((toast) => !current.messages.has(toast)).forEach((toast) => {
      home.append(toast.cloneNode(true));
      pair(toast, home.lastElementChild);
    });
  };
  const putAround = (unknown, target, answer) => {
    keepMessages(target, answer);
    const whole = new Set();
    const exact = new Set();
    unknown.forEach((control) => {
      const form = target.contains(control.form) ? control.form : null;
      const place = form ? twinOf(form, answer) : answer;
      if (!place || (form && form !== current.form && !current.reads)) { whole.add(form); return; }
      let twin = likeOf(control, place);
      if (!twin) {
        if (isTick(control) && !control.checked) return; // a cleared option that no longer exists
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
