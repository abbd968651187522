-- A hub's database as version 3 made it, before sites joined by themselves: a site, two records, a gap.
CREATE TABLE artifacts (
  digest TEXT NOT NULL,
  name TEXT,
  size BIGINT NOT NULL,
  document JSON NOT NULL,
  PRIMARY KEY (digest)
);
CREATE TABLE audit (
  id INTEGER NOT NULL,
  at_us BIGINT NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  detail JSON NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE deltas (
  base TEXT NOT NULL,
  target TEXT NOT NULL,
  digest TEXT,
  PRIMARY KEY (base, target)
)
 WITHOUT ROWID;
CREATE TABLE desired (
  site TEXT NOT NULL,
  generation BIGINT NOT NULL,
  release BIGINT NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (site)
);
CREATE TABLE epochs (
  site TEXT NOT NULL,
  epoch TEXT NOT NULL,
  ord BIGINT NOT NULL,
  since_us BIGINT NOT NULL,
  held BOOLEAN NOT NULL,
  session BIGINT,
  replaced BOOLEAN DEFAULT false NOT NULL,
  final BOOLEAN DEFAULT false NOT NULL,
  lost BOOLEAN DEFAULT false NOT NULL,
  PRIMARY KEY (site, epoch)
)
 WITHOUT ROWID;
CREATE TABLE facts (
  site TEXT NOT NULL,
  "key" TEXT NOT NULL,
  value TEXT NOT NULL,
  expires_at BIGINT,
  epoch TEXT NOT NULL,
  lane TEXT NOT NULL,
  seq BIGINT NOT NULL,
  since_us BIGINT NOT NULL,
  PRIMARY KEY (site, "key")
)
 WITHOUT ROWID;
CREATE TABLE fleet_facts (
  "key" TEXT NOT NULL,
  value TEXT,
  version BIGINT NOT NULL,
  expires_at BIGINT,
  at_us BIGINT NOT NULL,
  PRIMARY KEY ("key"),
  UNIQUE (version)
)
 WITHOUT ROWID;
CREATE TABLE gaps (
  site TEXT NOT NULL,
  epoch TEXT NOT NULL,
  lane TEXT NOT NULL,
  first BIGINT NOT NULL,
  last BIGINT NOT NULL,
  reason TEXT NOT NULL,
  hash BLOB NOT NULL,
  at_us BIGINT DEFAULT 0 NOT NULL,
  PRIMARY KEY (site, epoch, lane, first)
)
 WITHOUT ROWID;
CREATE TABLE incidents (
  site TEXT NOT NULL,
  what TEXT NOT NULL,
  "key" TEXT NOT NULL,
  first_us BIGINT NOT NULL,
  last_us BIGINT NOT NULL,
  times INTEGER NOT NULL,
  detail JSON NOT NULL,
  PRIMARY KEY (site, what, "key")
)
 WITHOUT ROWID;
CREATE TABLE keep (
  kind TEXT NOT NULL,
  agent TEXT NOT NULL,
  days INTEGER NOT NULL,
  PRIMARY KEY (kind, agent)
)
 WITHOUT ROWID;
CREATE TABLE leases (
  site TEXT NOT NULL,
  worker TEXT NOT NULL,
  PRIMARY KEY (site)
)
 WITHOUT ROWID;
CREATE TABLE meta (
  "key" TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY ("key")
);
CREATE TABLE quarantine (
  site TEXT NOT NULL,
  digest TEXT NOT NULL,
  at_us BIGINT NOT NULL,
  last_us BIGINT NOT NULL,
  times INTEGER NOT NULL,
  reason TEXT NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (site, digest)
);
CREATE TABLE records (
  site TEXT NOT NULL,
  epoch TEXT NOT NULL,
  lane TEXT NOT NULL,
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  kind TEXT NOT NULL,
  agent TEXT NOT NULL,
  subject TEXT,
  label TEXT,
  score FLOAT,
  ref TEXT,
  body TEXT NOT NULL,
  hash BLOB NOT NULL,
  received_us BIGINT NOT NULL,
  PRIMARY KEY (site, epoch, lane, seq)
)
 WITHOUT ROWID;
CREATE TABLE releases (
  release BIGINT NOT NULL,
  document JSON NOT NULL,
  created_us BIGINT NOT NULL,
  PRIMARY KEY (release)
);
CREATE TABLE sites (
  site TEXT NOT NULL,
  labels JSON NOT NULL,
  created_us BIGINT NOT NULL,
  online BOOLEAN NOT NULL,
  epoch TEXT,
  session BIGINT,
  last_seen_us BIGINT,
  heartbeat JSON,
  reported JSON,
  release BIGINT,
  generation BIGINT,
  state TEXT,
  journal_key TEXT,
  facts_version BIGINT,
  PRIMARY KEY (site)
)
 WITHOUT ROWID;
CREATE TABLE streams (
  site TEXT NOT NULL,
  epoch TEXT NOT NULL,
  lane TEXT NOT NULL,
  high BIGINT NOT NULL,
  hash BLOB NOT NULL,
  since_us BIGINT NOT NULL,
  told BIGINT DEFAULT 0 NOT NULL,
  last BIGINT DEFAULT 0 NOT NULL,
  forked BOOLEAN DEFAULT false NOT NULL,
  lost_us BIGINT,
  PRIMARY KEY (site, epoch, lane)
)
 WITHOUT ROWID;
CREATE TABLE trust (
  name TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (name)
)
 WITHOUT ROWID;
CREATE TABLE workers (
  worker TEXT NOT NULL,
  until_us BIGINT NOT NULL,
  counters JSON,
  PRIMARY KEY (worker)
)
 WITHOUT ROWID;
CREATE INDEX records_ref ON records (ref) WHERE ref IS NOT NULL AND lane != 'telemetry';
CREATE INDEX epochs_held ON epochs (held, site, ord, since_us, final);
INSERT INTO meta VALUES ('schema', '3');
INSERT INTO sites VALUES ('plant-01', '{"kind": "factory"}', 5, 1, '00000000000000aa', 7, 9, NULL, NULL, 3, 2, 'active', NULL, 4);
INSERT INTO streams VALUES ('plant-01', '00000000000000aa', 'decision', 4, x'0404', 6, 0, 4, 0, NULL);
INSERT INTO epochs VALUES ('plant-01', '00000000000000aa', 1, 6, 1, 7, 0, 0, 0);
INSERT INTO records VALUES
  ('plant-01', '00000000000000aa', 'decision', 1, 10, 'decision', 'press', NULL, 'ok', 0.5, NULL, '{"n":1}', x'0101', 11),
  ('plant-01', '00000000000000aa', 'decision', 4, 13, 'event', 'press', 'p', NULL, NULL, NULL, '{"n":4}', x'0404', 14);
INSERT INTO gaps VALUES ('plant-01', '00000000000000aa', 'decision', 2, 3, 'evicted', x'0303', 6);
INSERT INTO quarantine VALUES ('plant-01', 'ab', 1, 2, 3, 'no batch', x'00');
INSERT INTO releases VALUES (3, '{"release": 3, "agents": [], "artifacts": {}}', 8);
INSERT INTO desired VALUES ('plant-01', 2, 3, x'7b7d');
INSERT INTO audit VALUES (1, 8, 'operator', 'release created', '{"release": 3}', x'00');
