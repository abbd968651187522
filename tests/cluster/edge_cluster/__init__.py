"""`./dev e2e-k3s`: what only a real cluster can show, on the one that KUBECONFIG names."""
