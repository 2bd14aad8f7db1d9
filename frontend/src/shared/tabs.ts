/** Keeps the tabs of a browser in sync about what the server does not send them. Each topic has its own messages. */

export interface TabChannel<Message> {
  /** Sends to all other tabs. */
  post(message: Message): void
  close(): void
}

/** Calls `onMessage` with other tabs' messages on a topic, until closed. Does nothing without BroadcastChannel. */
export function openTabChannel<Message>(topic: string, onMessage: (message: Message) => void): TabChannel<Message> {
  if (typeof BroadcastChannel === 'undefined') return { post: () => undefined, close: () => undefined }
  const channel = new BroadcastChannel(`smartlink.${topic}`)
  channel.onmessage = ({ data }: MessageEvent<Message>) => onMessage(data)
  return { post: (message) => channel.postMessage(message), close: () => channel.close() }
}
