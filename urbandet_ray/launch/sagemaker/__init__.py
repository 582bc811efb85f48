"""SageMaker: the container's side of a training job, and the account's side that starts one.

container.py, hyperparameters.py, staging.py    what lies below /opt/ml, as a run config
entry.py, watch.py, raynode.py                  one Ray cluster over all hosts of a job
request.py, account.py, price.py                what the account is asked for, and what it costs
"""
