"""Work on one model shared out among workers: threads, local processes, a Ray cluster, or anything shaped like `concurrent.futures`.

A chunk (`worker.Chunk`) is a pure function of the model's weights and its arguments, and how work is cut into chunks does not depend on who
works, so one worker and eight give the same bits. `team` shares chunks out, puts results back in their order and repeats what a dead
worker lost; `executors` are local processes and Ray. Uses `models`. Start with `team`.
"""
