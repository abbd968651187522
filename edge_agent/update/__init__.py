"""Updates: from a signed desired document to a release that runs, or to a reason why not."""
