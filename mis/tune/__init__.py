"""The search: its space, who suggests and who stops, one trial, the study on Ray Tune."""
