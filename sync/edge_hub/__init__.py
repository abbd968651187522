"""The hub of a fleet. From the process down to its tables; each imports only what stands below it:

serve       the process: broker, hub, API and enrolment, started in order, ended in reverse
api         what operators ask by HTTP
workers     ingest in more than one process
hub         the store, the link to the broker, and the threads between them
sites       the register of sites; backup: a hub copied while it runs, and set back
enrol       the authority, join tokens, certificates
ingest      what sites send; delivery: what they get; keeping: how long; broker: who carries it; speaker: who says it
facts       what sites know and are told
records     what is held of sites, and what follows from it: chain, gaps, losses, incidents
database    one schema on SQLite and PostgreSQL
"""
