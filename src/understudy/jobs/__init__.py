"""What every front end calls: a declarative job in, events out.

`request` says what a job is, `events` what it reports, `runner` runs it, `pool` keeps models,
`results` writes pictures with their recipes; one file a verb. Knows no command line and no page.
"""
