"""What is finished, and how the rest is made: nodes of one store.

node   a file or folder of results with all that decides what is in it, and its note
store  the nodes of a folder: what state they are in, what must go, and what is left to make
"""
