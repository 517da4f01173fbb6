"""How it is kept: settings, the embedded broker, provisioning, the commands, telemetry, the demo."""
