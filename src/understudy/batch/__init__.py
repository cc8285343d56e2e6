"""Many jobs from a table, on local worker processes or on a Ray cluster.

A row of the table is a job of any verb. Its key and its seed come from its content, so that
results do not depend on the order of rows, on the number of workers, or on how often a batch was
stopped. Knows jobs by their requests only.
"""
