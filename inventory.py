"""Production: one VPS. Its address stands here and in the docs only; nothing in tests/ reads this file."""

production = [
    (
        "ai-admin.app",
        {
            "ssh_hostname": "46.149.70.219",
            "ssh_user": "root",
            # pyinfra's own default is accept-new, whatever ssh_config says
            "ssh_strict_host_key_checking": "yes",
        },
    ),
]
