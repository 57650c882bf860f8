"""From a log to a measured model: the stages of a plan, each a node of a store.

plan            what there is to do, and where each result is stored
folder          the output folder
nodes           what a plan is made of; `values`, the settings that decide it
execute         the work of a plan: what is stale or damaged goes, what is left is made
consistency     whether what is finished can be trusted
records         results.jsonl
prepare         the first steps of a plan; `stages`, the prepared log and the graph; `notices`, what is odd
                about a log; `held_out`, the log without last items
whole_log       a log as numbered history, for a graph without examples
sources         what the files of a log hold of the logs of services
inputs          what all models of a run share
cell            one model trained with one seed; `cell_results`, measured; `refit`, weights that have
                learned later rows
cell_bundle     its bundle; `blending`, the blend of model and links in it
serving_time    how long it takes to serve
tuning          search of settings on validation
topn_cell       top-N lists of a model or baseline; `lists`, what they are to find and are compared with
"""
