import { createPinia } from 'pinia'
import { createApp } from 'vue'
import { provideAccountId, onAnotherAccount, onSignedOut } from '@/api/client'
import App from '@/app/App.vue'
import { buildRouter } from '@/app/router'
import { useSession } from '@/features/users/session'
import '@/styles/tokens.css'
import '@/styles/base.css'
import '@/styles/controls.css'

const app = createApp(App).use(createPinia())
provideAccountId(() => useSession().account?.id ?? null)
onSignedOut(() => useSession().ended())
onAnotherAccount(() => useSession().superseded())
app.use(buildRouter()).mount('#app')
