"""Answers for many photos: from a model and lists of photos to files with a label and scores for each."""
