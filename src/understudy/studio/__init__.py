"""The studio: one local web application for all tasks, and the HTTP API behind its pages.

`app` makes the application, `store` keeps jobs and files in SQLite, `queue` runs jobs in worker
processes, `security` checks every request. The server itself never imports torch.
"""
