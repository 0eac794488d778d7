"""What all that speaks SSH shares: ssh_config(5), jump hosts, agents and their keys, questions."""
