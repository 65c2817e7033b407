"""What the sidecar engine costs: its way in beside iptables TPROXY, the very same Envoy behind both."""
