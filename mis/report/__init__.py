"""One page that shows what the pipeline's files hold."""
