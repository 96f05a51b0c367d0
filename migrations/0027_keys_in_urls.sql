-- When a key was first seen in an address, where logs, histories and other sites keep it: its owner should replace it.

alter table api_key add column seen_in_url_at timestamptz;

grant update (seen_in_url_at) on api_key to marketplace_api;
