// A real OpenID provider, npm's certified oidc-provider, for the tests of signing in:
//
//   node tests/programs/oidc_provider.mjs CONFIG.json ACCOUNTS.json
//
// CONFIG is what tests/support/oauth_peers.py writes. ACCOUNTS holds the claims by login name and is read anew each time, so
// that a test can change a person between two sign-ins. Without `config.login` it shows a form; no password is asked.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [configFile, accountsFile] = process.argv.slice(2);
const config = JSON.parse(readFileSync(configFile, 'utf8'));
const require = createRequire(config.node_modules);
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const accounts = () => JSON.parse(readFileSync(accountsFile, 'utf8'));
const escaped = (text) => String(text).replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);
const page = (title, body) => `<!doctype html><title>${title}</title><h1>${title}</h1>${body}`;

const subject = (login, claims) => claims.sub ?? `sub-of-${login}`;

// To this provider the id of an account is its subject, whatever the claims say.
async function findAccount(ctx, sub) {
  const found = Object.entries(accounts()).find(([login, claims]) => subject(login, claims) === sub);
  return found && { accountId: sub, claims: async () => ({ ...found[1], sub }) };
}

// Consent is not what the portal's tests are about: whoever signs in grants all that was asked for.
async function loadExistingGrant(ctx) {
  const { client, session, params } = ctx.oidc;
  const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(params.scope);
  await grant.save();
  return grant;
}

const provider = new Provider(config.issuer, {
  clients: [{
    client_id: config.client_id,
    client_secret: config.client_secret,
    token_endpoint_auth_method: config.client_auth,
    redirect_uris: config.redirect_uris,
    post_logout_redirect_uris: config.post_logout_redirect_uris,
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  }],
  claims: {
    // Groups come with every sign-in, asked for or not, as directories are mostly set up.
    openid: ['sub', 'groups', ...config.more_claims], groups: ['groups'],
    email: ['email', 'email_verified'], profile: ['name', 'preferred_username'],
  },
  scopes: ['openid', 'offline_access'],
  conformIdTokenClaims: !config.claims_in_id_token,
  pkce: { required: () => true },
  cookies: { keys: ['for-tests'], names: { session: 'peer_session', interaction: 'peer_interaction', resume: 'peer_resume' } },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    rpInitiatedLogout: {
      enabled: config.end_session,
      logoutSource: (ctx, form) => {
        ctx.body = page('Sign out', `${form}<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
    },
    revocation: { enabled: true },
  },
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = page('Refused', Object.values(out).map((text) => `<p>${escaped(text)}</p>`).join(''));
  },
  findAccount,
  loadExistingGrant,
  ttl: {
    AccessToken: 600, Grant: 3600, Interaction: 600, RefreshToken: 3600,
    AuthorizationCode: config.code_seconds, IdToken: config.id_token_seconds, Session: config.session_seconds,
  },
});

async function posted(ctx) {
  let text = '';
  for await (const chunk of ctx.req) text += chunk;
  return new URLSearchParams(text);
}

async function interact(ctx) {
  const finish = (result) => provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: false });
  ctx.respond = false; // interactionFinished writes the answer itself
  const form = ctx.method === 'POST' ? await posted(ctx) : new URLSearchParams();
  const login = form.get('login') ?? config.login;
  if (form.has('cancel')) return finish({ error: 'access_denied', error_description: 'The person cancelled' });
  const claims = login && accounts()[login];
  if (claims) return finish({ login: { accountId: subject(login, claims) } });
  ctx.respond = true;
  ctx.type = 'html';
  ctx.status = login ? 400 : 200;
  ctx.body = page('Sign in', `${login ? `<p role="alert">No account ${escaped(login)}</p>` : ''}
    <form method="post"><label>Login <input name="login" autofocus></label>
    <button>Sign in</button> <button name="cancel" value="yes">Cancel</button></form>`);
  return undefined;
}

provider.use(async (ctx, next) => (ctx.path.startsWith('/interaction/') ? interact(ctx) : next()));
for (const event of ['server_error', 'authorization.error', 'grant.error']) {
  provider.on(event, (ctx, error) => console.error(event, error.error ?? error, error.error_detail ?? ''));
}
provider.listen(config.port, config.host);
