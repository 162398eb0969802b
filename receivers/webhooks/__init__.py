"""Signed webhooks of vendors without Shared Signals: what they say becomes an ordinary signal.

POST {base}/v1/signals/webhook/{provider}
  routes.receive_webhook     provider, content type, size
  signatures.verify  (pure)  who sent it, over the raw octets, in constant time
  mapping.apply      (pure)  the vendor's JSON to events of CAEP, RISC or vendors: data, no code
  service.accept             the same inbox as SETs (ACCEPT), committed, then 202
"""
