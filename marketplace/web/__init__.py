"""HTTP for every route: limits before a request is read, problems, metrics and the OpenAPI document."""
