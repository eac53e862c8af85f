"""Several tasks in one model, such as lip reading and emotion."""
